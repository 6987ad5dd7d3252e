"""A user's own benchmark in a TOML file, for commands that name benchmarks: ``train --eval``, ``audit --against``.

The file has the options of ``bench pairs`` or ``bench identify``. Its paths are relative to its folder.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from benchmarks import BENCHMARKS
from benchmarks.datasets.identify import read_identification
from benchmarks.datasets.pair_set import read_pair_set
from benchmarks.datasets.resolutions import RESOLUTIONS
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import Protocol
from pipeline.align import TEMPLATES
from pipeline.spec import NO_TEMPLATE
from pipeline.tables.toml_file import read_toml

_FOLDERS = ("root", "gallery", "probes", "unmated")
_EXPECTED = "expected pairs (and root), or gallery and probes (and unmated); with landmarks or aligned; sizes; name"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnBenchmark:
    """What a file states.

    Attributes:
        path: the file.
        name: of the benchmark that it makes, part of the names of metrics.
        paths: ``pairs``, ``root``, ``gallery``, ``probes``, ``unmated``, as far as they are stated.
        landmarks: tables.
        aligned: see ``own_images.Preparation``.
        sizes: px.
    """

    path: Path
    name: str
    paths: dict[str, Path]
    landmarks: list[Path]
    aligned: str | None
    sizes: tuple[int, ...]

    def protocol(self) -> Protocol:
        """Reads the lists and folders. Raises: as ``read_pair_set`` and ``read_identification``."""
        options: dict[str, Any] = {"name": self.name, "landmarks": self.landmarks, "sizes": self.sizes}
        if "pairs" in self.paths:
            return read_pair_set(self.paths["pairs"], self.aligned, root=self.paths.get("root"), **options)
        gallery, probes, unmated = self.paths["gallery"], self.paths["probes"], self.paths.get("unmated")
        return read_identification(gallery, probes, unmated, aligned=self.aligned, **options)


def read_own_benchmark(path: Path) -> OwnBenchmark:
    """Reads a file; the files and folders that it names are not opened.

    Raises:
        ProtocolError: it cannot be read, or does not describe a benchmark.
    """
    try:
        return _own_benchmark(path, read_toml(path))
    except OSError as error:
        raise ProtocolError(
            f"{path}: {error.strerror or error}; expected a TOML file that describes a benchmark"
        ) from None
    except ValueError as error:
        raise ProtocolError(f"{path}: {' '.join(str(error).split())[:200]}; {_EXPECTED}") from None


def _own_benchmark(path: Path, fields: dict[str, Any]) -> OwnBenchmark:
    """Raises: ValueError: a field is missing, unknown, or of the wrong type."""
    texts = ("pairs", *_FOLDERS, "name", "aligned")
    if unknown := sorted(set(fields) - {*texts, "landmarks", "sizes"}):
        raise ValueError(f"{', '.join(unknown)}: unknown")
    for key in texts:
        if key in fields and not (isinstance(fields[key], str) and fields[key] and "\0" not in fields[key]):
            raise ValueError(f"{key} is not text")
    stated = {key for key in ("pairs", *_FOLDERS) if key in fields}
    if not (stated in ({"pairs"}, {"pairs", "root"}) or {"gallery", "probes"} <= stated <= set(_FOLDERS[1:])):
        raise ValueError(f"states {', '.join(sorted(stated)) or 'nothing'}")
    is_bin = fields.get("pairs", "").lower().endswith(".bin")
    if not is_bin and ("landmarks" in fields) == ("aligned" in fields):
        raise ValueError(
            "states neither or both of landmarks (tables) and aligned (arcface, seed, a TOML file or none)"
        )
    return OwnBenchmark(
        path=path,
        name=_name(fields.get("name", path.stem)),
        paths={key: path.parent / fields[key] for key in stated},
        landmarks=[path.parent / table for table in _tables(fields.get("landmarks", []))],
        aligned=_aligned(path.parent, fields.get("aligned")),
        sizes=_sizes(fields.get("sizes", list(RESOLUTIONS))),
    )


def _name(name: str) -> str:
    if not _NAME.fullmatch(name) or name in BENCHMARKS:
        problem = (
            "is a benchmark of this tool" if name in BENCHMARKS else "has other characters than letters and digits"
        )
        raise ValueError(f"the name {name[:40]!r} {problem}; choose another one: name = 'mine'")
    return name


def _tables(tables: Any) -> list[str]:
    tables = [tables] if isinstance(tables, str) else tables
    if not (isinstance(tables, list) and all(isinstance(table, str) and "\0" not in table for table in tables)):
        raise ValueError("landmarks is not a list of tables")
    if "auto" in tables:
        raise ValueError("landmarks is auto: find them once, by the command landmarks, and name the table")
    return tables


def _aligned(folder: Path, value: str | None) -> str | None:
    return value if value in (None, NO_TEMPLATE, *TEMPLATES) else str(folder / str(value))


def _sizes(sizes: Any) -> tuple[int, ...]:
    if not (isinstance(sizes, list) and all(type(size) is int for size in sizes)):
        raise ValueError("sizes is not a list of px")
    return tuple(sizes)
