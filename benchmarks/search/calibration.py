"""A calibration: what turns the scores of one network into likelihood ratios, and its file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import SearchError
from benchmarks.scoring.arrays import MAX_FLOAT
from benchmarks.search.likelihood import Fitted, Line
from pipeline.images.decode import read_regular
from shards.arguments import check_path
from shards.files import StrPath, digest, write_bytes
from shards.messages import counted

KIND = "lrfr calibration"
VERSION = 1
MAX_CURVE_POINTS = 10_000
EXPECTED = "expected a file written by calibrate"
CURVE = ("curve_scores", "curve_low", "curve_high")
NETWORK = ("digest", "backbone", "flip")  # what embed and bench say of a network
CONDITIONS = ("alignment", "down", "group", "weights")  # what embed says of images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """A calibration and where it comes from.

    Attributes:
        fitted: score -> log10 LR.
        network: its digest, which is also that of its preprocessing; its backbone; and flip fusion, if there is any.
        source: the pairs, for people, and conditions of their images such as ``probes_down``.
        counts: genuine and impostor pairs, and people with a genuine pair.
        date: ISO 8601.
    """

    fitted: Fitted
    network: Mapping[str, str]
    source: Mapping[str, str]
    counts: Mapping[str, int]
    date: str

    def check_network(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Raises: SearchError: the calibration is of another network than the table of this path and metadata."""
        for name in ("digest", "flip"):
            ours, theirs = self.network.get(name, ""), metadata.get(name, "")
            if ours != theirs:
                raise SearchError(
                    f"{path}: embedded by another network or preprocessing than the calibration's ({name}"
                    f" {theirs[:60] or 'none'}, calibration {ours[:60] or 'none'}); calibrate with scores of this network"
                )

    def differences(self, role: str, metadata: Mapping[str, str]) -> list[str]:
        """How the images of a table (``role`` gallery or probes) differ from those of the calibration, as far as known."""
        found = []
        for name in CONDITIONS:
            stated = self.source.get(f"{role}_{name}")
            if stated is not None and stated != metadata.get(name, ""):
                found.append(f"{role}: {name} {metadata.get(name) or 'none'}, calibrated with {stated or 'none'}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-serialisable values, with a digest of them."""
        record = {"kind": KIND, "version": VERSION, **dataclasses.asdict(self)}
        return {**record, "file_digest": digest(record)}

    def write(self, path: Path) -> None:
        """Writes the calibration as JSON, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, (json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n").encode())


def counted_pairs(counts: Mapping[str, int]) -> str:
    """``Calibration.counts`` as text."""
    people = counted(counts["people"], "person")
    return f"{counts['genuine']:,} genuine pairs of {people} and {counts['impostors']:,} impostor pairs"


def read_calibration(path: StrPath) -> Calibration:
    """Reads a file of ``Calibration.write``.

    Raises:
        SearchError: it is missing, is not a calibration, or was edited.
        TypeError: ``path`` is not a path.
    """
    path = check_path("path", path)
    try:
        return _from_dict(json.loads(read_regular(path)))
    except OSError as error:
        raise SearchError(f"{path}: {error.strerror}; {EXPECTED}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError) as error:
        reason = ascii(str(error).partition("\n")[0])[1:-1][:120]
        raise SearchError(f"{path}: not a calibration ({reason}); {EXPECTED}") from None


def _from_dict(record: Any) -> Calibration:
    """Raises: ValueError, TypeError, LookupError, AttributeError: the record is not what ``to_dict`` returns."""
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise ValueError(f"no field kind with the value {KIND!r}")
    if record.pop("version", None) != VERSION:
        raise ValueError(f"its version is not {VERSION}")
    if record.pop("file_digest", None) != digest({**record, "version": VERSION}):
        raise ValueError("damaged or edited: its digest does not match")
    fitted = record["fitted"]
    line = fitted.pop("line")
    pairs = ("scores", "bounds", "cllr_interval", "misleading")
    for part in (line, fitted):
        for name, value in part.items():
            size = MAX_CURVE_POINTS if name.startswith("curve") else 2 if name in pairs else 0
            part[name] = _numbers(name, value, size)
    if len({len(fitted[name]) for name in CURVE}) != 1 or np.diff(fitted["curve_scores"]).min() < 0:
        raise ValueError("curve_scores: not sorted, or not of the same length as the interval")
    counted_pairs(record["counts"]), record["source"]["pairs"]
    for name, kind in (("network", str), ("source", str), ("counts", int)):
        if not all(type(value) is kind for value in record[name].values()):
            raise ValueError(f"{name}: expected values of type {kind.__name__}")
    tuples = {name: tuple(fitted[name]) for name in ("cllr_interval", "misleading")}
    line |= {name: tuple(line[name]) for name in ("scores", "bounds")}
    return Calibration(
        fitted=Fitted(**{**fitted, **tuples, "line": Line(**line)}),
        network=record["network"],
        source=record["source"],
        counts=record["counts"],
        date=str(record["date"]),
    )


def _numbers(name: str, value: Any, size: int) -> float | list[float]:
    """Returns ``value`` as a float, or, for a ``size``, as a list of two or more floats, and at most as many.

    Raises:
        ValueError: it is not a calibration, or a value is not a finite number.
    """
    if size and (not isinstance(value, list) or not 2 <= len(value) <= size):
        raise ValueError(f"{name}: expected a list of numbers")
    values = value if size else [value]
    if not all(type(one) in (int, float) and abs(one) <= MAX_FLOAT for one in values):
        raise ValueError(f"{name}: a value is not a finite number")
    return [float(one) for one in values] if size else float(value)
