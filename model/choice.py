"""Named choices with options, as a user writes them: ``arcface:scale=32,margin=0.3``."""

from __future__ import annotations

import dataclasses
from typing import Any

from shards.errors import LrfrError


class ChoiceError(LrfrError):
    """A choice that cannot be read. One line."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A name and its options: truth values, whole and other numbers, text, and lists of numbers."""

    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """What ``parse_choice`` reads."""
        written = ",".join(f"{name}={_written(value)}" for name, value in self.options.items())
        return f"{self.name}:{written}" if written else self.name


def parse_choice(text: str) -> Choice:
    """Reads ``name`` or ``name:option=value,option=value``; a list is written ``0.4/0.6/0.8``, one of one ``0.4/``.

    Raises:
        ChoiceError: an option without a value, given twice, or nothing at all.
    """
    name, colon, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not option or not equals or not value or option in options:
            raise ChoiceError(f"{text!r}: found {part.strip()!r}, expected each option once, as option=value")
        options[option] = _value(value)
    if not name.strip():
        raise ChoiceError(f"{text!r}: no name; expected name or name:option=value,option=value")
    return Choice(name.strip(), options)


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "/" in text:
        return tuple(_value(part) for part in text.split("/") if part)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "/".join(map(_written, value)) + "/" * (len(value) == 1)
    return str(value)
