"""What a head, a loss or a schedule can be told: named values with a default and a range, checked before anything is built."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from shards.errors import LrfrError


class OptionError(LrfrError):
    """Something that cannot be built as asked. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """A number, a whole number, a truth value or a list of numbers, as its default is.

    Attributes:
        about: what it is, with its unit.
        least, most: both allowed, ``least`` only if ``with_least``; without meaning for a truth value.
    """

    default: float | int | bool | tuple[float, ...]
    about: str
    least: float = 0.0
    most: float = math.inf
    with_least: bool = True

    def __post_init__(self) -> None:
        if self.fault(self.default):
            raise ValueError(f"default {self.default} of {self.about}: expected {self.fault(self.default)}")

    def fault(self, value: Any) -> str | None:
        """What was expected instead of ``value``; None if it is fine."""
        if isinstance(self.default, bool):
            return None if isinstance(value, bool) else "true or false"
        if isinstance(self.default, tuple):
            one = dataclasses.replace(self, default=self.default[0])
            faults = [one.fault(item) for item in (value if isinstance(value, tuple) else (value,))]
            return next((fault for fault in faults if fault), None)
        whole = isinstance(self.default, int)
        kind = int if whole else int | float
        enough = isinstance(value, kind) and (value >= self.least if self.with_least else value > self.least)
        if enough and not isinstance(value, bool) and value <= self.most and math.isfinite(value):
            return None
        low = f"{'at least' if self.with_least else 'above'} {self.least:g}"
        high = f" and at most {self.most:g}" if self.most < math.inf else ""
        return f"a {'whole' if whole else 'finite'} number {low}{high}"


def checked(subject: str, known: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of ``subject``, those not given by their defaults. Raises: OptionError: unknown, or out of range."""
    for name, value in given.items():
        if name not in known:
            has = ", ".join(known) or "no options"
            raise OptionError(f"{subject} has no option {name!r}; it has {has}: leave {name} out")
        fault = known[name].fault(value)
        if fault:
            default = str(known[name].default).lower()
            raise OptionError(f"{subject}: {name} is {value!r}, expected {fault}; its default is {default}")
    return {name: _of_kind(option.default, given.get(name, option.default)) for name, option in known.items()}


def _of_kind(default: Any, value: Any) -> Any:
    """A whole number where another is the default becomes one, and a number a list of one, so that equals are written alike."""
    if isinstance(default, tuple):
        return tuple(map(float, value if isinstance(value, tuple) else (value,)))
    return float(value) if isinstance(default, float) else value
