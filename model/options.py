"""Options: frozen dataclasses whose fields declare type, default, bounds and help, and their text form."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import numbers
import os
import pkgutil
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from shards.arguments import shown
from shards.errors import LrfrError


class OptionError(LrfrError):
    """Malformed text, an unknown name or option, an invalid value, or options that exclude each other."""


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
        OptionError: no name, an option without a value, or an option given twice.
    """
    name, colon, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not option or not equals or not value or option in options:
            raise OptionError(f"{text!r}: found {part.strip()!r}, expected each option once, as option=value")
        options[option] = _parse_value(value)
    if not name.strip():
        raise OptionError(f"{text!r}: no name; expected name or name:option=value,option=value")
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


def value_text(value: object) -> str:
    """The text form of an option's value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "/".join(map(value_text, value)) + "/" * (len(value) == 1)
    return str(value)


def plain_value(value: object) -> str | float | None:
    """The JSON-able form of an option's value: its text, if it is neither a number nor None."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if value is None or isinstance(value, bool | int | float) else str(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """Declaration of one option.

    Attributes:
        default: a number, bool, text, tuple of numbers, or None.
        help: one line, with the unit.
        type: of the values.
        min, max: bounds of a number; ``min_open`` and ``max_open`` exclude the bound itself.
        choices: the allowed words.
        parse: function that converts text, as ``module:function``; imported when it is first needed.
        changes: when a run that goes on from a checkpoint may have another value: never, only in a new run folder
            (a branch), or always.
        flag, metavar: spelling on the command line, where it does not follow from name and type.
    """

    default: Any
    help: str
    type: Any
    min: float = 0
    max: float = math.inf
    min_open: bool = False
    max_open: bool = False
    choices: tuple[str, ...] = ()
    parse: str | None = None
    changes: Literal["never", "branch", "always"] = "never"
    flag: str | None = None
    metavar: str | None = None

    def convert(self, value: Any) -> Any:
        """Validates a value and gives it the option's type. Raises: ValueError: what was expected instead."""
        if value is None and self.default is None:
            return value
        if self.parse:
            return self._parsed(value)
        if self.choices and not (isinstance(value, str) and value in self.choices):
            raise ValueError(f"one of {', '.join(self.choices)}")
        if self.type in (int, float):
            return self._number(value, self.type)
        if self.type is tuple:
            return tuple(self._number(item, float) for item in (value if isinstance(value, tuple) else (value,)))
        if self.type is str and isinstance(value, os.PathLike):
            return os.fspath(value)
        if not isinstance(value, self.type):
            raise ValueError("true or false" if self.type is bool else "text in quotes")
        return value

    def _parsed(self, value: object) -> Any:
        """Reads text. Parsed values, as ``dataclasses.replace`` passes them, are validated by reading their text."""
        if isinstance(value, tuple | list) and not any(isinstance(item, str) for item in value):
            value = ",".join(map(str, value))
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f"text in quotes, such as {self.default!r}")
        return pkgutil.resolve_name(self.parse or "")(value)

    def _number(self, value: Any, kind: type[int] | type[float]) -> float:
        is_number = isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
        if is_number and not isinstance(value, numbers.Rational):
            value = float(value)  # of NumPy's: the largest float has no equal in float32
        excluded = [self.min] * self.min_open + [self.max] * self.max_open
        if is_number and self.min <= value <= min(self.max, sys.float_info.max) and value not in excluded:
            return kind(value)
        low = f"{'above' if self.min_open else 'at least'} {self.min}"
        high = f" and {'below' if self.max_open else 'at most'} {self.max}" if self.max < math.inf else ""
        raise ValueError(f"a {'whole' if kind is int else 'finite'} number {low}{high}")


def option(default: Any, **declaration: Any) -> Any:
    """A dataclass field with the attributes of an ``Option``; the type defaults to that of ``default``."""
    declared = Option(**{"default": default, "type": type(default), **declaration})
    return dataclasses.field(default=default, metadata={"option": declared})


@dataclasses.dataclass(frozen=True, init=False)
class Options:
    """Base of validated options. Subclasses are frozen dataclasses whose fields are declared with ``option``.

    Attributes:
        kind, name: identify the options in error messages, such as ``head`` and ``arcface``.
    """

    kind: ClassVar[str]
    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, init=False)(cls)

    def __init__(self, **values: Any) -> None:
        """Missing options take their defaults. Raises: OptionError: unknown option or invalid value."""
        defaults = {name: declared.default for name, declared in self.declared().items()}
        for name, value in self.converted({**defaults, **values}).items():
            object.__setattr__(self, name, value)
        self.check()

    def check(self) -> None:
        """Validates options that depend on each other. Raises: OptionError."""

    @classmethod
    def declared(cls) -> dict[str, Option]:
        """Declarations by name; inherited options come last."""
        inherited = {field.name for base in cls.__bases__ for field in dataclasses.fields(base)}
        fields = sorted(dataclasses.fields(cls), key=lambda field: field.name in inherited)
        return {field.name: field.metadata["option"] for field in fields}

    @classmethod
    def converted(cls, values: Mapping[str, object]) -> dict[str, Any]:
        """Validates values and gives them their types. Raises: OptionError: unknown option or invalid value."""
        subject, known, result = f"{cls.kind} {cls.name}".strip(), cls.declared(), {}
        for name, value in values.items():
            if name not in known:
                raise OptionError(f"{subject} has no option {name!r}; {cls._hint(name)}")
            try:
                result[name] = known[name].convert(value)
            except ValueError as error:
                raise OptionError(f"{subject}: {name} is {shown(value)}, expected {error}") from None
        return result

    @classmethod
    def _hint(cls, name: str) -> str:
        """Says which option a wrong name stands for, or lists the options."""
        known = cls.declared()
        spellings = {(declared.flag or known_name).lstrip("-"): known_name for known_name, declared in known.items()}
        found = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), [*known, *spellings], n=1, cutoff=0.8)
        if found:
            return f"did you mean {spellings.get(found[0], found[0])}?"
        return f"it has {', '.join(known) or 'no options'}: leave {name} out"

    def values(self) -> dict[str, Any]:
        """The options by name."""
        return {name: getattr(self, name) for name in self.declared()}

    def __str__(self) -> str:
        """The text form, such as ``arcface:scale=64.0,margin=0.5``."""
        return str(Choice(self.name, self.values()))


T = TypeVar("T", bound=Options)


class Registry(dict[str, type[T]]):
    """Classes of one kind by name."""

    def __init__(self, *classes: type[T]) -> None:
        super().__init__({cls.name: cls for cls in classes})

    def build(self, name: str, options: Mapping[str, object]) -> T:
        """Raises: OptionError: unknown name or option, or an invalid value."""
        if not isinstance(name, str) or name not in self:
            kind = next(iter(self.values())).kind
            raise OptionError(f"{kind} {shown(name)} is unknown; {self._hint(str(name))}choose from {', '.join(self)}")
        return self[name](**options)

    def _hint(self, name: str) -> str:
        """What a wrong name may stand for: a name spelt otherwise, one that a summary mentions, or options after a comma."""
        first, comma, rest = name.partition(",")
        if comma and first in self and "=" in rest:
            return f"write options after a colon, {first}:{rest}; "
        plain = name.lower().replace("_", "-")
        found = difflib.get_close_matches(plain, self, n=1, cutoff=0.8)
        found += [
            known for known, cls in self.items() if len(plain) > 3 and plain in f"{known} {_summary(cls)}".lower()
        ]
        return f"did you mean {found[0]}? " if found else ""

    def parse(self, text: str) -> T:
        """Reads text such as ``arcface:scale=32``. Raises: OptionError: it is not valid."""
        if not text.strip():
            raise OptionError(f"{next(iter(self.values())).kind} is empty; choose from {', '.join(self)}")
        choice = parse_choice(text)
        return self.build(choice.name, choice.options)

    def describe(self) -> str:
        """The help text: a line for each name and each of its options."""
        lines = []
        for name, cls in self.items():
            lines.append(f"{name}: {_summary(cls)}")
            for option_name, declared in cls.declared().items():
                setting = f"{option_name}={value_text(declared.default)}"
                lines.append(f"    {setting:<22} {declared.help}")
        return "\n".join(lines)


def _summary(cls: type[Options]) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(cls) or "").splitlines()[0]
