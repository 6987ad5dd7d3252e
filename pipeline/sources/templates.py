"""Templates that aligned crops follow: the built-in ones, or a file."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.align import TEMPLATES, crop_points, template_points
from pipeline.sources.source import SourceError
from pipeline.spec import MAX_SIZE_PX, NO_TEMPLATE, Preprocessing, are_in_order
from pipeline.tables.landmark_scale import NORMALISED
from pipeline.tables.toml_file import read_toml
from shards.files import StrPath

_BUILT_IN_PX = 112
_EXPECTED = (
    'expected name = "...", size = 112 or [width, height], and points = [[x, y], ...]: left eye, right eye, nose, left and'
    " right mouth corner, as the viewer sees them"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropTemplate:
    """Where the five points are in aligned crops.

    Attributes:
        name: for messages; a built-in template is a key of ``pipeline.align.TEMPLATES``.
        size: (width, height) of the crops that ``points`` refer to, px.
        points: x and y of left eye, right eye, nose, left and right mouth corner, as the viewer sees them, px.
    """

    name: str
    size: tuple[int, int]
    points: tuple[tuple[float, float], ...]

    def fits(self, width: int, height: int) -> bool:
        """Returns True if an image has the shape of the crops, at any size."""
        return height == round(width * self.size[1] / self.size[0])

    def points_in(self, width: int) -> np.ndarray:
        """Returns the (5, 2) float64 points in a crop that is ``width`` px wide."""
        return np.array(self.points) * (width / self.size[0])

    def to_list(self) -> list[float]:
        """Returns size and points as plain numbers."""
        return [*self.size, *(value for point in self.points for value in point)]

    @property
    def built_in(self) -> str | None:
        """Name of the built-in template with the same points, if there is one."""
        return next((name for name in TEMPLATES if self.is_of(Preprocessing(template=name))), None)

    def spec(self, size: int) -> Preprocessing:
        """Returns the spec of these crops, with points of its own, at ``size`` px.

        Raises:
            SourceError: the crops are not square, or have the name of a built-in template.
        """
        if self.size[0] != self.size[1]:
            shape = "x".join(map(str, self.size))
            raise SourceError(
                f"--aligned {self.name}: say which template to store: --template {' or '.join(sorted(TEMPLATES))};"
                f" its own crops, {shape} px, are not square"
            )
        if self.name in (*TEMPLATES, NO_TEMPLATE):
            raise SourceError(f"--aligned: {self.name!r} names another template; choose another name in the file")
        points = self.points_in(size).tolist()
        return Preprocessing(template=self.name, size=size, points=tuple((x, y) for x, y in points))

    def is_of(self, spec: Preprocessing) -> bool:
        """Returns True if crops of this template are those of ``spec``, at any size."""
        side = self.size[0]
        return self.size[1] == side and bool(np.allclose(self.points, crop_points(spec, side), rtol=0, atol=1e-3))


def template_of(spec: Preprocessing) -> CropTemplate:
    """Returns the template that the aligned crops of a spec follow."""
    if spec.points is None and not spec.margin:
        return crop_template(spec.template)
    points = crop_points(spec, spec.size).tolist()
    return CropTemplate(name=spec.template, size=(spec.size,) * 2, points=tuple((x, y) for x, y in points))


def crop_template(value: StrPath) -> CropTemplate:
    """Returns a built-in template by name, or reads one from a TOML file.

    Raises:
        SourceError: there is neither, or the file is not a template.
    """
    path = Path(value)
    if str(path) in TEMPLATES:
        points = template_points(str(path), _BUILT_IN_PX).tolist()
        return CropTemplate(name=str(path), size=(_BUILT_IN_PX, _BUILT_IN_PX), points=tuple((x, y) for x, y in points))
    if not path.exists() and path.suffix.lower() != ".toml":
        raise SourceError(
            f"--aligned {os.fspath(value)}: no such template or file; expected {', '.join(TEMPLATES)} or a TOML file"
        )
    try:
        return _parsed(read_toml(path))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}; expected a TOML file with a template") from None
    except ValueError as error:
        raise SourceError(f"{path}: not a template ({' '.join(str(error).split())[:100]}); {_EXPECTED}") from None


def _parsed(fields: dict[str, Any]) -> CropTemplate:
    """Raises: ValueError: a field is missing, unknown, or cannot be."""
    if odd := sorted({"name", "size", "points"} ^ set(fields)):
        raise ValueError(f"{', '.join(odd)}: missing or unknown")
    name, size, points = checked_name(fields["name"]), fields["size"], fields["points"]
    sides = [size, size] if isinstance(size, int) else size
    if not (isinstance(sides, list) and len(sides) == 2 and all(_is_side(side) for side in sides)):
        raise ValueError(f"size is not 1 to {MAX_SIZE_PX} px, or two such numbers")
    if not (isinstance(points, list) and len(points) == 5 and all(map(_is_point, points))):
        raise ValueError("points are not five pairs of numbers")
    if not are_in_order(points):
        raise ValueError("the points are not in order, with the left eye left of the right one, and the mouth below")
    check_not_normalised(points)
    return CropTemplate(
        name=name, size=(sides[0], sides[1]), points=tuple((float(point[0]), float(point[1])) for point in points)
    )


def checked_name(value: Any) -> str:
    """The name of a template. Raises: ValueError: it is not a short text."""
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 80:
        raise ValueError("name is not a short text")
    return value


def check_not_normalised(points: Sequence[Sequence[float]]) -> None:
    """Raises: ValueError: the points of a template are not in px."""
    if max(itertools.chain(*points), default=np.inf) <= NORMALISED:
        raise ValueError("the points lie between 0 and 1, so they are normalised; multiply them by the size")


def _is_side(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_SIZE_PX


def _is_point(value: Any) -> bool:
    """A pair of numbers that may be in a crop, or near it."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(one) in (int, float) and abs(one) <= 2 * MAX_SIZE_PX for one in value)
    )
