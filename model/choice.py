"""Text form of a name with options, such as ``arcface:scale=32,margin=0.3``."""

from __future__ import annotations

import dataclasses
from typing import Any

from shards.errors import LrfrError


class ChoiceError(LrfrError):
    """Text that is not a name with options."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A name and its options: bools, ints, floats, text, and tuples of these."""

    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """The text that ``parse_choice`` reads."""
        options = ",".join(f"{name}={value_text(value)}" for name, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name


def parse_choice(text: str) -> Choice:
    """Reads ``name`` or ``name:option=value,option=value``; a tuple is written ``0.4/0.6/0.8``, of one item ``0.4/``.

    Raises:
        ChoiceError: no name, an option without a value, or an option given twice.
    """
    name, colon, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not option or not equals or not value or option in options:
            raise ChoiceError(f"{text!r}: found {part.strip()!r}, expected each option once, as option=value")
        options[option] = _parse_value(value)
    if not name.strip():
        raise ChoiceError(f"{text!r}: no name; expected name or name:option=value,option=value")
    return Choice(name.strip(), options)


def _parse_value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "/" in text:
        return tuple(_parse_value(part) for part in text.split("/") if part)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def value_text(value: Any) -> str:
    """The text form of an option's value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "/".join(map(value_text, value)) + "/" * (len(value) == 1)
    return str(value)
