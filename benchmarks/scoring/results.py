"""What a benchmark found, as a value and as JSON."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL

from benchmarks.scoring.intervals import Interval
from benchmarks.scoring.samples import Samples
from pipeline.prepare import Request
from shards.files import write_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownPair:
    """A pair for the report: two prepared images and their cosine."""

    first: Request
    second: Request
    score: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a benchmark found; figures are fractions.

    Attributes:
        data: path of the folder that was scored.
        doubts: why figures on it are not comparable with those published; empty if they are.
        main: the figure that stands for all.
        metrics: figures by name.  intervals: their 95 % intervals, by name.
        counts: sizes of what was scored, and what it cost.
        missing: images that could not be used, with the reason; if there are any, the figures are partial.
        checkpoint: what was judged, and at which precision on which device.  preprocessing: how its images were prepared.
        settings: samples behind the figures.  hardest: setting -> genuine or impostors -> pairs, hardest first.
    """

    benchmark: str
    title: str
    data: str
    doubts: list[str]
    main: str
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    counts: dict[str, int]
    missing: list[tuple[str, str]]
    checkpoint: dict[str, Any]
    preprocessing: dict[str, Any]
    settings: dict[str, Samples]
    hardest: dict[str, dict[str, list[ShownPair]]]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able fields, with the versions that it depends on."""
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("settings", "hardest", "missing")
        }
        return {
            **plain,
            "partial": bool(self.missing),
            "missing": [{"path": path, "reason": reason} for path, reason in self.missing],
            "versions": _versions(),
            "hardest": {
                setting: {kind: [_names(pair) for pair in pairs] for kind, pairs in kinds.items()}
                for setting, kinds in self.hardest.items()
            },
            "samples": {setting: samples.to_dict() for setting, samples in self.settings.items()},
        }


def _versions() -> dict[str, str]:
    libraries = {"numpy": np.__version__, "opencv": cv2.__version__, "pillow": PIL.__version__}
    return {"lrfr": _installed("lrfr"), "python": platform.python_version(), "torch": _installed("torch"), **libraries}


def _installed(package: str) -> str:
    """Its version, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # a checkout that is run as it is


def _names(pair: ShownPair) -> dict[str, Any]:
    return {"first": str(pair.first.path), "second": str(pair.second.path), "score": pair.score}


def write_json(results: list[Result], path: Path) -> None:
    """Writes one result, or a list of several, as JSON; whole or not at all."""
    records = [result.to_dict() for result in results]
    content = records[0] if len(records) == 1 else {"benchmark": "all", "results": records}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
