"""Checks of the arguments of the Python API: what was found, and what was expected, in one line."""

from __future__ import annotations

import math
import numbers
import operator
import os
import reprlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

MAX_CHARS = 120
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60


def shown(value: Any) -> str:
    """Describes a value in one short line; a tensor or an array by dtype and shape."""
    if hasattr(value, "dtype") and getattr(value, "shape", ()) != ():
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {type(value).__name__} of {dtype} and shape {tuple(value.shape)}"
    text = " ".join(_repr.repr(value).split())
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}..."


def check_argument(good: bool, name: str, value: Any, expected: str) -> None:
    """Raises: TypeError: the argument ``name`` is not ``good``."""
    if not good:
        raise TypeError(f"{name} is {shown(value)}, expected {expected}")


def check_whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Returns a whole number, of Python or NumPy, as an int.

    Raises:
        TypeError: it is not a whole number.
        ValueError: it is below ``least`` or above ``most``.
    """
    check_argument(hasattr(value, "__index__") and not isinstance(value, bool), name, value, "a whole number")
    try:
        number = operator.index(value)
    except TypeError:  # an array
        raise TypeError(f"{name} is {shown(value)}, expected a whole number") from None
    if (least is not None and number < least) or (most is not None and number > most):
        bounds = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
        raise ValueError(f"{name} is {number}, expected {' and '.join(bounds)}")
    return number


def check_number(name: str, value: Any) -> None:
    """Raises: TypeError: it is not a finite number."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    check_argument(good, name, value, "a finite number")


def check_word(name: str, value: Any, words: Collection[str]) -> None:
    """Raises: ValueError: it is not one of ``words``."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} is {shown(value)}, expected one of {', '.join(words)}")


def check_path(name: str, value: Any) -> Path:
    """Returns a path. Raises: TypeError: it is neither text nor a path."""
    if isinstance(value, Path):
        return value
    check_argument(
        isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)),
        name,
        value,
        "a path, as text or pathlib.Path",
    )
    return Path(value)


def check_paths(name: str, value: Any) -> tuple[Path, ...]:
    """Returns the paths of one or several. Raises: TypeError: it is neither."""
    if isinstance(value, str | os.PathLike):
        return (check_path(name, value),)
    several = isinstance(value, Iterable) and not isinstance(value, bytes)
    check_argument(several, name, value, "a path, or several")
    return tuple(check_path(name, path) for path in value)
