"""What a benchmark found, as a value, as JSON, and read back."""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from benchmarks.errors import ProtocolError
from benchmarks.intervals import Interval
from benchmarks.prepare import Request
from benchmarks.samples import Samples, from_dict
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
        data: the folder that was scored, and what is known of it.
        main: the figure that stands for all.
        metrics: figures by name.  intervals: their 95 % intervals, by name.
        counts: sizes of what was scored, and what it cost.
        missing: images that could not be used, with the reason; if there are any, the figures are partial.
        checkpoint: what was judged.  preprocessing: how its images were prepared.
        settings: samples behind the figures.  hardest: setting -> genuine or impostors -> pairs, hardest first.
    """

    benchmark: str
    title: str
    data: str
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
        versions = {"python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__}
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("settings", "hardest", "missing")
        }
        return {
            **plain,
            "partial": bool(self.missing),
            "missing": [{"path": path, "reason": reason} for path, reason in self.missing],
            "versions": versions,
            "hardest": {
                setting: {kind: [_names(pair) for pair in pairs] for kind, pairs in kinds.items()}
                for setting, kinds in self.hardest.items()
            },
            "samples": {setting: samples.to_dict() for setting, samples in self.settings.items()},
        }


def _names(pair: ShownPair) -> dict[str, Any]:
    return {"first": str(pair.first.path), "second": str(pair.second.path), "score": pair.score}


def write_json(results: list[Result], path: Path) -> None:
    """Writes one result, or a list of several, as JSON; whole or not at all."""
    records = [result.to_dict() for result in results]
    content = records[0] if len(records) == 1 else {"benchmark": "all", "results": records}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedResult:
    """The part of a written result that comparisons need; fields as in ``Result``."""

    benchmark: str
    title: str
    data: str
    metrics: dict[str, float]
    checkpoint: dict[str, Any]
    partial: bool
    settings: dict[str, Samples]


def read_results(path: Path) -> list[SavedResult]:
    """Reads what ``write_json`` wrote.

    Raises:
        ProtocolError: the file is not there, or not a result of this tool.
    """
    try:
        content = json.loads(path.read_bytes())
        records = content["results"] if content["benchmark"] == "all" else [content]
        return [
            SavedResult(
                settings={setting: from_dict(samples) for setting, samples in record["samples"].items()},
                **{name: record[name] for name in ("benchmark", "title", "data", "metrics", "checkpoint", "partial")},
            )
            for record in records
        ]
    except OSError as error:
        raise ProtocolError(f"{path}: {error.strerror}; expected a file that bench --json wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:80]
        raise ProtocolError(f"{path}: not a result that bench --json wrote ({reason})") from None
