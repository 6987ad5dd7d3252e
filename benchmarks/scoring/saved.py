"""Reads result files that ``bench --json`` wrote. Everything is validated, because a file may come from anywhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks.errors import ProtocolError
from benchmarks.scoring.arrays import MAX_FLOAT, decode_array
from benchmarks.scoring.curves import OpenSetSamples, PairSamples
from benchmarks.scoring.intervals import Interval
from benchmarks.scoring.results import Scores
from benchmarks.scoring.samples import RankSamples, Samples
from pipeline.images.decode import read_regular

ROUNDING = 1e-6
MAX_METRIC = 1 + ROUNDING  # metrics are fractions
ADDED_METRICS = ("eer",)  # since the first version
_KINDS: dict[str, type[Samples]] = {kind.kind: kind for kind in (PairSamples, RankSamples, OpenSetSamples)}


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class SavedResult(Scores):
    """A result from a file."""

    preprocessing: dict[str, Any]

    @property
    def preparation(self) -> dict[str, Any]:
        return self.preprocessing


def read_results(path: Path) -> list[SavedResult]:
    """Reads a file that ``write_json`` wrote.

    Raises:
        ProtocolError: the file is missing or not a valid result; the message names the invalid field.
    """
    try:
        content = json.loads(read_regular(path))
        several = _field(content, "benchmark", str) == "all"
        records = _field(content, "results", list) if several else [content]
        results = [_result(record) for record in records]
    except OSError as error:
        raise ProtocolError(f"{path}: {error.strerror}; expected a file written by bench --json") from None
    except (ValueError, RecursionError, MemoryError) as error:
        reason = ascii(str(error).partition("\n")[0])[1:-1][:120]
        raise ProtocolError(f"{path}: not a result written by bench --json ({reason})") from None
    if not results:
        raise ProtocolError(f"{path}: contains no result; expected a file written by bench --json")
    return results


def _result(record: Any) -> SavedResult:
    checkpoint = _field(record, "checkpoint", dict)
    _field(checkpoint, "backbone", str)
    _field(checkpoint, "step", int, type(None))
    _field(checkpoint, "precision", str)
    settings = {name: _samples(name, samples) for name, samples in _field(record, "samples", dict).items()}
    if not settings:
        raise ValueError("samples: empty")
    metrics = _metrics(_field(record, "metrics", dict), settings)
    main = _optional(record, "main", "")
    return SavedResult(
        benchmark=_field(record, "benchmark", str),
        title=_field(record, "title", str),
        data=_optional(record, "data", ""),
        caveats=[_checked("doubts", doubt, str) for doubt in _optional(record, "doubts", [])],
        notes=[_checked("notes", note, str) for note in _optional(record, "notes", [])],
        main=main if main in metrics else next(iter(metrics)),
        metrics=metrics,
        intervals=_intervals(_optional(record, "intervals", {})),
        threshold_intervals=_intervals(_optional(record, "threshold_intervals", {})),
        counts={name: _checked("counts", count, int) for name, count in _optional(record, "counts", {}).items()},
        missing=_missing(record),
        checkpoint=checkpoint,
        settings=settings,
        measurement=_optional(record, "measurement", {}),
        versions={name: str(version) for name, version in _optional(record, "versions", {}).items()},
        preprocessing=_optional(record, "preprocessing", {}),
    )


def _metrics(record: dict[str, Any], settings: dict[str, Samples]) -> dict[str, float]:
    """The metrics that the samples have. Files of earlier versions lack some: they are computed."""
    metrics = {}
    for setting, samples in settings.items():
        for name, computed in samples.metrics().items():
            full = setting.format(name)
            value = computed if name in ADDED_METRICS and full not in record else _field(record, full, float, int)
            if not 0 <= value <= MAX_METRIC:
                raise ValueError(f"metrics {full}: {value}, expected a fraction")
            if abs(value - computed) > ROUNDING:
                raise ValueError(f"metrics {full}: {value:g}, but its samples give {computed:g}")
            metrics[full] = float(value)
    return metrics


def _intervals(record: dict[str, Any]) -> dict[str, Interval]:
    intervals = {}
    for name, bounds in record.items():
        good = isinstance(bounds, list) and len(bounds) == 2 and all(type(one) in (int, float) for one in bounds)
        if not good or not -MAX_FLOAT <= bounds[0] <= bounds[1] <= MAX_FLOAT:
            raise ValueError(f"intervals {name[:40]}: expected two numbers, the lower one first")
        intervals[name] = (float(bounds[0]), float(bounds[1]))
    return intervals


def _missing(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The images that were left out. Raises: ValueError: the list does not fit ``partial``."""
    listed = [(_field(one, "path", str), _field(one, "reason", str)) for one in _optional(record, "missing", [])]
    if not _field(record, "partial", bool):
        if listed:
            raise ValueError("missing: lists images, but the result is not partial")
        return []
    return listed or [("unknown", "the file does not list it")]


def _samples(setting: str, record: Any) -> Samples:
    """Raises: ValueError: ``setting`` is not a template of metric names, or ``record`` is not valid samples."""
    if setting.count("{}") != 1 or setting.count("{") + setting.count("}") != 2:
        raise ValueError(f"samples {setting[:40]}: not a valid setting name")
    try:
        return decode_samples(record)
    except KeyError as error:
        raise ValueError(f"samples {setting}: {error} is missing or unknown") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"samples {setting}: {str(error)[:90]}") from None


def decode_samples(record: dict[str, Any]) -> Samples:
    """Decodes what ``Samples.to_dict`` returned. Raises: KeyError, TypeError, ValueError: invalid record."""
    arrays = dict(record)
    kind, digest = _KINDS[arrays.pop("kind")], decode_array(arrays.pop("questions"))
    return kind(protocol_digest=digest, **{name: decode_array(value) for name, value in arrays.items()})


def _optional(record: dict[str, Any], name: str, default: Any) -> Any:
    """``record[name]``, of the type of ``default``; files of earlier versions may lack it."""
    return _field(record, name, type(default)) if name in record else default


def _field(record: Any, name: str, *types: type) -> Any:
    """``record[name]``. Raises: ValueError: ``record`` is not an object, lacks the field, or its type is wrong."""
    if not isinstance(record, dict) or name not in record:
        raise ValueError(f"{name}: missing")
    return _checked(name, record[name], *types)


def _checked(name: str, value: Any, *types: type) -> Any:
    """``value``. Raises: ValueError: it has another type."""
    if type(value) not in types:
        expected = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"{name}: {type(value).__name__}, expected {expected}")
    return value
