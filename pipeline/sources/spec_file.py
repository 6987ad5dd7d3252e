"""Preprocessing by name or from a TOML file, as a user gives it."""

from __future__ import annotations

import dataclasses
import os
import reprlib
from pathlib import Path
from typing import Any

from pipeline.align import FILTERS, TEMPLATES
from pipeline.named_specs import NAMED_SPECS
from pipeline.sources.templates import check_not_normalised, checked_name
from pipeline.spec import COLORS, FITS, MAX_SIZE_PX, NO_TEMPLATE, Preprocessing, SpecError
from pipeline.tables.toml_file import read_toml
from shards.files import StrPath

_WORDS = {
    "base": tuple(NAMED_SPECS),
    "template": (*TEMPLATES, NO_TEMPLATE),
    "warp": tuple(FILTERS),
    "color": COLORS,
    "fit": FITS,
}
_OTHERS = ("name", "size", "points", "points_size", "range", "mean", "std", "margin", "stretch")


def read_spec(value: StrPath, option: str = "--preprocessing") -> Preprocessing:
    """Returns a preset by name, or reads a preprocessing spec from a TOML file.

    Keys of the file: ``base``, the name of a preset whose values count for what is not given; ``size``; ``template``, or
    ``points`` (with ``points_size`` if they are for another size) and their ``name``; ``color``, ``mean`` and ``std`` of
    pixels in 0..``range`` (default 1); ``warp``, ``fit``, ``margin``, ``stretch``.

    Args:
        option: what gives the value, for messages.

    Raises:
        SpecError: there is neither, or the file cannot be read or is not such a spec.
    """
    path = Path(value)
    if (preset := NAMED_SPECS.get(os.fspath(value))) is not None:
        return preset
    if not path.exists() and path.suffix.lower() != ".toml":
        raise SpecError(
            f"{option} {os.fspath(value)}: no such preprocessing or file; expected {', '.join(NAMED_SPECS)} or a TOML file"
        )
    try:
        return _spec(read_toml(path))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror or error}; expected a TOML file with a preprocessing") from None
    except SpecError as error:
        reason = str(error).removeprefix("preprocessing spec: ").removesuffix("; restore the file that contains it")
        raise SpecError(f"{path}: {reason}") from None
    except (ValueError, ArithmeticError) as error:
        raise SpecError(f"{path}: {' '.join(str(error).split())[:200]}") from None


def _spec(fields: dict[str, Any]) -> Preprocessing:
    """Raises: ValueError, SpecError: a key is missing, unknown, or cannot be."""
    if odd := sorted(set(fields) - {*_WORDS, *_OTHERS}):
        raise ValueError(f"{odd[0]!a}: unknown key, expected some of {', '.join((*_WORDS, *_OTHERS))}")
    for key, words in _WORDS.items():
        if key in fields and (not isinstance(fields[key], str) or fields[key] not in words):
            raise ValueError(f"{key} is {reprlib.repr(fields[key])}, expected {', '.join(words)}")
    own = {key: value for key, value in fields.items() if key not in ("base", "name", "points_size", "range")}
    if "base" not in fields and ("size" not in own or not own.keys() & {"template", "points"}):
        raise ValueError('expected size = 112 and template = "arcface" or points = [[x, y], ...], or base = "arcface"')
    if own.keys() >= {"template", "points"}:
        raise ValueError("template and points: expected one of them")
    base = NAMED_SPECS[fields["base"]] if "base" in fields else Preprocessing()
    if own.get("template") == NO_TEMPLATE:
        base = Preprocessing.unaligned(color=base.color, mean=base.mean, std=base.std, size=base.size)
    elif "template" in own or "points" in own:
        base = dataclasses.replace(base, points=None, template=_name(fields), stretch=1.0)
    elif "points_size" in fields or "name" in fields:
        raise ValueError("name and points_size are of points, which are missing")
    size = own.get("size", base.size)
    if type(size) is not int or not 1 <= size <= MAX_SIZE_PX:
        raise ValueError(f"size is {reprlib.repr(size)}, expected one whole number from 1 to {MAX_SIZE_PX} px")
    if "points" in own:
        own["points"] = _scaled(own["points"], size, fields.get("points_size", size))
    elif base.points is not None and size != base.size:
        own["points"] = _scaled([list(point) for point in base.points], size, base.size)
    for key in own.keys() & {"mean", "std"}:
        own[key] = _divided(key, own[key], fields.get("range", 1))
    if "range" in fields and not own.keys() & {"mean", "std"}:
        raise ValueError("range is of mean and std, which are missing")
    return dataclasses.replace(base, **own)


def _name(fields: dict[str, Any]) -> str:
    """The name of the template. Raises: ValueError: that of the points is not text, or is taken."""
    if "template" in fields:
        return str(fields["template"])
    name = checked_name(fields.get("name", "own"))
    if name in (*TEMPLATES, NO_TEMPLATE):
        raise ValueError(f"name is {name!a}, that of another template; choose another one")
    return name


def _scaled(points: Any, size: int, points_size: Any) -> Any:
    """Points of a crop of ``points_size`` px in one of ``size`` px; what is not a list of pairs as it is."""
    if type(points_size) not in (int, float) or not 1 <= points_size <= MAX_SIZE_PX:
        raise ValueError(f"points_size is {reprlib.repr(points_size)}, expected 1 to {MAX_SIZE_PX} px")
    try:
        scaled = [[value * (size / points_size) for value in point] for point in points]
        check_not_normalised(scaled)
    except TypeError:
        return points
    return scaled


def _divided(key: str, value: Any, range: Any) -> Any:
    if type(range) not in (int, float) or not 0 < range <= 1e6:
        raise ValueError(f"range is {reprlib.repr(range)}, expected 1, or 255 for mean and std of pixels in 0 to 255")
    numbers = value if isinstance(value, list) else [value]
    if any(type(one) not in (int, float) or abs(one) > 1e6 for one in numbers):
        raise ValueError(f"{key} is {reprlib.repr(value)}, expected a number, or three")
    divided = [one / range for one in numbers]
    return divided if isinstance(value, list) else divided[0]
