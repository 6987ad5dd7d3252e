"""Results read back from the files that ``bench --json`` wrote; the files come from anywhere, so everything is checked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from benchmarks.errors import ProtocolError
from benchmarks.scoring.samples import Samples, from_dict

_MOST = 1 + 1e-6  # figures are fractions; sums of rounded terms may exceed 1 by a little


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedResult:
    """The part of a written result that comparisons need; fields as in ``Result``."""

    benchmark: str
    title: str
    metrics: dict[str, float]
    checkpoint: dict[str, Any]
    partial: bool
    settings: dict[str, Samples]


def read_results(path: Path) -> list[SavedResult]:
    """Reads what ``write_json`` wrote.

    Raises:
        ProtocolError: the file is not there, or not a result of this tool; the message says which part is not.
    """
    try:
        content = json.loads(path.read_bytes())
        several = _field(content, "benchmark", str) == "all"
        records = _field(content, "results", list) if several else [content]
        results = [_result(record) for record in records]
    except OSError as error:
        raise ProtocolError(f"{path}: {error.strerror}; expected a file that bench --json wrote") from None
    except (ValueError, RecursionError) as error:
        reason = ascii(str(error).partition("\n")[0])[1:-1][:120]
        raise ProtocolError(f"{path}: not a result that bench --json wrote ({reason})") from None
    if not results:
        raise ProtocolError(f"{path}: holds no result; expected a file that bench --json wrote")
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
    expected = [setting.format(name) for setting, samples in settings.items() for name in samples.figures()]
    for name in expected:
        if not 0 <= _field(metrics, name, float, int) <= _MOST:
            raise ValueError(f"metrics {name}: {metrics[name]}, expected a fraction")
    return SavedResult(
        benchmark=_field(record, "benchmark", str),
        title=_field(record, "title", str),
        metrics={name: float(metrics[name]) for name in expected},
        checkpoint=checkpoint,
        partial=_field(record, "partial", bool),
        settings=settings,
    )


def _samples(setting: str, record: Any) -> Samples:
    """Raises: ValueError: the name is not a template of figures' names, or the record not one of samples."""
    if setting.count("{}") != 1 or setting.count("{") + setting.count("}") != 2:
        raise ValueError(f"samples {setting[:40]}: not the name of a setting")
    try:
        return from_dict(record)
    except KeyError as error:
        raise ValueError(f"samples {setting}: {error} is missing or unknown") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"samples {setting}: {str(error)[:90]}") from None


def _field(record: Any, name: str, *kinds: type) -> Any:
    """The field ``name``. Raises: ValueError: the record is not an object, lacks it, or it is of none of the kinds."""
    if not isinstance(record, dict) or name not in record:
        raise ValueError(f"{name}: missing")
    if type(record[name]) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name}: {type(record[name]).__name__}, expected {wanted}")
    return record[name]
