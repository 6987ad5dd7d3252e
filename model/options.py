"""Options: frozen dataclasses whose fields declare type, default, bounds and help in one place."""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from model.choice import Choice, parse_choice, value_text
from shards.errors import LrfrError


class OptionError(LrfrError):
    """An unknown option, an invalid value, or options that do not go together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """Declaration of one option; see ``option``.

    Attributes:
        default: a number, bool, text, tuple of numbers, or None.
        help: one line, with the unit.
        of: type of the values; default: the type of ``default``.
        min, max: bounds of a number; ``min_open`` and ``max_open`` exclude the bound itself.
        choices: the allowed words.
        parse: converts text to a value.
        fixed: a resumed run must have the same value.
        flag, metavar: command-line spelling where it differs from the field's name and type.
    """

    default: Any
    help: str
    of: type | None = None
    min: float = 0
    max: float = math.inf
    min_open: bool = False
    max_open: bool = False
    choices: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    fixed: bool = True
    flag: str | None = None
    metavar: str | None = None

    @property
    def value_type(self) -> Any:
        return self.of or type(self.default)

    def convert(self, value: Any) -> Any:
        """Validates a value and gives it the option's type. Raises: ValueError: what was expected instead."""
        if self.parse:
            if isinstance(value, str):
                return self.parse(value)
            if dataclasses.is_dataclass(value) or isinstance(value, tuple):
                return value  # parsed before; dataclasses.replace passes such values
            raise ValueError("text")
        if value is None and self.default is None:
            return None
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"one of {', '.join(self.choices)}")
            return value
        if self.value_type is tuple:
            items = value if isinstance(value, tuple) else (value,)
            return tuple(self._number(item, float) for item in items)
        if self.value_type in (int, float):
            return self._number(value, self.value_type)
        if not isinstance(value, self.value_type):
            raise ValueError("true or false" if self.value_type is bool else "text")
        return value

    def _number(self, value: Any, kind: type) -> Any:
        is_number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        excluded = [self.min] * self.min_open + [self.max] * self.max_open
        if is_number and self.min <= value <= min(self.max, sys.float_info.max) and value not in excluded:
            return kind(value)
        low = f"{'above' if self.min_open else 'at least'} {self.min:g}"
        high = f" and {'below' if self.max_open else 'at most'} {self.max:g}" if self.max < math.inf else ""
        raise ValueError(f"a {'whole' if kind is int else 'finite'} number {low}{high}")


def option(default: Any, **declaration: Any) -> Any:
    """Declares a field of an ``Options`` class; ``declaration`` as the attributes of ``Option``."""
    return dataclasses.field(default=default, metadata={"option": Option(default=default, **declaration)})


@dataclasses.dataclass(frozen=True, init=False)
class Options:
    """Base of validated options. Subclasses are frozen dataclasses whose fields are declared with ``option``.

    Attributes:
        kind, name: what the options belong to, such as ``head`` and ``arcface``.
    """

    kind: ClassVar[str] = ""
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
    def converted(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Validates values and gives them their types. Raises: OptionError: unknown option or invalid value."""
        subject, known, result = f"{cls.kind} {cls.name}".strip(), cls.declared(), {}
        for name, value in values.items():
            if name not in known:
                names = ", ".join(known) or "no options"
                raise OptionError(f"{subject} has no option {name!r}; it has {names}: leave {name} out")
            try:
                result[name] = known[name].convert(value)
            except ValueError as error:
                default = value_text(known[name].default)
                raise OptionError(
                    f"{subject}: {name} is {value!r}, expected {error}; its default is {default}"
                ) from None
        return result

    def __str__(self) -> str:
        """The text form with all options, such as ``arcface:scale=64.0,margin=0.5``."""
        return str(Choice(self.name, {name: getattr(self, name) for name in self.declared()}))


T = TypeVar("T", bound=Options)


def parse_options(text: str, known: Mapping[str, type[T]]) -> T:
    """Reads text such as ``arcface:scale=32``.

    Args:
        known: classes of one kind, by name.

    Raises:
        OptionError: unknown name or option, or an invalid value.
        ChoiceError: the text cannot be read.
    """
    choice = parse_choice(text)
    return named(choice.name, known)(**choice.options)


def named(name: str, known: Mapping[str, type[T]]) -> type[T]:
    """The class of that name. Raises: OptionError: unknown name."""
    if name not in known:
        kind = next(iter(known.values())).kind
        raise OptionError(f"{kind} {name!r} is unknown; choose from {', '.join(known)}")
    return known[name]


def by_name(*classes: type[T]) -> dict[str, type[T]]:
    """The classes by their names."""
    return {one.name: one for one in classes}


def describe(known: Mapping[str, type[Options]]) -> str:
    """What there is to choose from: a line for each name and each of its options."""
    lines = []
    for name, one in known.items():
        lines.append(f"{name}: {(inspect.getdoc(one) or '').splitlines()[0]}")
        for option_name, declared in one.declared().items():
            setting = f"{option_name}={value_text(declared.default)}"
            lines.append(f"    {setting:<22} {declared.help}")
    return "\n".join(lines)
