"""Reads result files that ``bench --json`` wrote. Everything is validated, because a file may come from anywhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks.errors import ProtocolError
from benchmarks.scoring.samples import Samples, from_dict
from pipeline.sources.images import read_regular

MAX_METRIC = 1 + 1e-6  # metrics are fractions; rounding may exceed 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedResult:
    """The part of a saved result that a comparison needs; fields as in ``Result``."""

    benchmark: str
    title: str
    metrics: dict[str, float]
    checkpoint: dict[str, Any]
    partial: bool
    settings: dict[str, Samples]


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
    metrics = _field(record, "metrics", dict)
    names = [setting.format(name) for setting, samples in settings.items() for name in samples.metrics()]
    for name in names:
        if not 0 <= _field(metrics, name, float, int) <= MAX_METRIC:
            raise ValueError(f"metrics {name}: {metrics[name]}, expected a fraction")
    return SavedResult(
        benchmark=_field(record, "benchmark", str),
        title=_field(record, "title", str),
        metrics={name: float(metrics[name]) for name in names},
        checkpoint=checkpoint,
        partial=_field(record, "partial", bool),
        settings=settings,
    )


def _samples(setting: str, record: Any) -> Samples:
    """Raises: ValueError: ``setting`` is not a template of metric names, or ``record`` is not valid samples."""
    if setting.count("{}") != 1 or setting.count("{") + setting.count("}") != 2:
        raise ValueError(f"samples {setting[:40]}: not a valid setting name")
    try:
        return from_dict(record)
    except KeyError as error:
        raise ValueError(f"samples {setting}: {error} is missing or unknown") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"samples {setting}: {str(error)[:90]}") from None


def _field(record: Any, name: str, *types: type) -> Any:
    """``record[name]``. Raises: ValueError: ``record`` is not an object, lacks the field, or its type is wrong."""
    if not isinstance(record, dict) or name not in record:
        raise ValueError(f"{name}: missing")
    if type(record[name]) not in types:
        expected = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"{name}: {type(record[name]).__name__}, expected {expected}")
    return record[name]
