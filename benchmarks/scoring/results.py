"""The result of a benchmark, and its JSON form."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from typing import Any

import cv2
import numpy as np
import PIL

from benchmarks.scoring.examples import HardPair
from benchmarks.scoring.intervals import Interval
from benchmarks.scoring.samples import HISTOGRAM_EDGES, Samples
from pipeline.images.decode import MAX_PIXELS
from pipeline.prepare import Request
from pipeline.spec import Preprocessing
from shards.arguments import check_argument, check_path
from shards.files import StrPath, write_bytes


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Scores:
    """What a network scored on a benchmark; metrics are fractions.

    Attributes:
        data: path of the data set.
        caveats: reasons why the metrics are not comparable with published ones; empty if they are.
        main: name of the headline metric.
        metrics: values by name.
        intervals: 95 % intervals by metric; one without width (all resamples agree) says nothing.
        threshold_intervals: 95 % intervals by threshold.
        counts: sizes of the protocol, numbers of forward passes and of cached embeddings.
        missing: unusable images, each with the reason. If there are any, the result is partial.
        checkpoint: name, path, step, backbone and digest of the network, and what else is known of it; precision and
            device of its forward passes.
        settings: setting -> scored samples.
        measurement: date, command and hardware; empty if not recorded.
        versions: of Python and the libraries.
        notes: how the protocol was made, such as who counts as one person.
    """

    benchmark: str
    title: str
    data: str
    caveats: list[str]
    main: str
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    counts: dict[str, int]
    missing: list[tuple[str, str]]
    checkpoint: dict[str, Any]
    settings: dict[str, Samples]
    threshold_intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    measurement: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def __repr__(self) -> str:
        missing = f", {len(self.missing):,} images missing" if self.missing else ""
        return f"{type(self).__name__}({self.benchmark}: {self.main} {self.metrics[self.main]:.4f}{missing})"

    @property
    def partial(self) -> bool:
        return bool(self.missing)

    @property
    def thresholds(self) -> dict[str, float]:
        """Cosines from which on a pair or a probe is accepted, by name, such as ``threshold@far=0.01@8``."""
        return {
            setting.format(name): value
            for setting, samples in self.settings.items()
            for name, value in samples.thresholds().items()
        }

    @property
    def preparation(self) -> dict[str, Any]:
        """The network's preprocessing spec as plain fields."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Result(Scores):
    """The result of a benchmark that has just been scored: its images can still be read.

    Attributes:
        preprocessing: the network's preprocessing spec.
        max_pixels: the limit with which the images were read.
        hardest: setting -> ``genuine`` or ``impostors`` -> pairs, hardest first.
        examples: setting, or another kind of image -> some of its images.
    """

    preprocessing: Preprocessing
    hardest: dict[str, dict[str, list[HardPair]]]
    examples: dict[str, list[Request]] = dataclasses.field(default_factory=dict)
    max_pixels: int = MAX_PIXELS

    @property
    def preparation(self) -> dict[str, Any]:
        return self.preprocessing.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-serialisable fields."""
        return {
            "benchmark": self.benchmark,
            "title": self.title,
            "data": self.data,
            "doubts": self.caveats,
            **({"notes": self.notes} if self.notes else {}),
            "main": self.main,
            "metrics": self.metrics,
            "thresholds": self.thresholds,
            "intervals": self.intervals,
            "threshold_intervals": self.threshold_intervals,
            "counts": self.counts,
            "checkpoint": self.checkpoint,
            "preprocessing": self.preprocessing.to_dict(),
            "partial": self.partial,
            "missing": [{"path": path, "reason": reason} for path, reason in self.missing],
            "measurement": self.measurement,
            "versions": self.versions,
            "hardest": {
                setting: {
                    kind: [{"first": one.first.name, "second": one.second.name, "score": one.score} for one in pairs]
                    for kind, pairs in kinds.items()
                }
                for setting, kinds in self.hardest.items()
            },
            "histograms": {
                "edges": np.round(HISTOGRAM_EDGES, 3).tolist(),
                **{setting: counts for setting, one in self.settings.items() if (counts := one.histograms())},
            },
            "samples": {setting: samples.to_dict() for setting, samples in self.settings.items()},
        }


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that scores depend on."""
    return {
        "lrfr": _installed_version("lrfr"),
        "python": platform.python_version(),
        "torch": _installed_version("torch"),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
    }


def _installed_version(package: str) -> str:
    """Version of a package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # lrfr run from a checkout


def write_json(results: list[Result], path: StrPath) -> None:
    """Writes one result, or a list of several, as JSON, atomically. Raises: TypeError: an argument of a wrong type."""
    path = check_path("path", path)
    good = isinstance(results, list | tuple) and len(results) > 0 and all(isinstance(one, Result) for one in results)
    check_argument(good, "results", results, "a list of one or several results, as run() returns them")
    records = [result.to_dict() for result in results]
    content = records[0] if len(records) == 1 else {"benchmark": "all", "results": records}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
