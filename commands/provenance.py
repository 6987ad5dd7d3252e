"""What results record of a network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.formats.network import LoadedNetwork

MAX_POINTS = 200  # of a training curve
MAX_TEXT = 200
_RATES = ("images_per_s", "loader_wait")  # rows of a metrics file that say nothing of learning


def network_facts(network: LoadedNetwork, name: str | None, device: str) -> dict[str, Any]:
    """Name, number of parameters, training data, configuration and curves, as JSON-serialisable fields.

    Args:
        name: given by the user.
        device: of the forward passes; a GPU is named.
    """
    import torch

    facts = {
        "name": name,
        "parameters": sum(weight.numel() for weight in network.backbone.parameters()),
        "training_data": _plain(network.training_data),
        "training": _plain(network.training),
        "curves": _curves(network.path, network.step),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }
    return {key: value for key, value in facts.items() if value}


def _plain(value: Any) -> Any:
    """A value of a checkpoint, which may come from anywhere, as JSON has it."""
    if isinstance(value, dict):
        return {str(key)[:MAX_TEXT]: _plain(one) for key, one in list(value.items())[:MAX_TEXT]}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value[:MAX_TEXT]]
    if value is None or type(value) in (bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    return str(value)[:MAX_TEXT]


def _curves(path: Path, step: int | None) -> dict[str, list[float]]:
    """The metrics of the run of a checkpoint, up to its step, as columns; empty without a run."""
    from model.training.runlog import METRICS, read_metrics

    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if step is None or not (run / METRICS).is_file():
        return {}
    rows = [row for row in read_metrics(run / METRICS) if row["step"] <= step]
    rows = rows[:: max(-(-len(rows) // MAX_POINTS), 1)]
    names = [name for name in (rows[0] if rows else {}) if name not in _RATES]
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    good = {name: all(type(one) in (int, float) and math.isfinite(one) for one in columns[name]) for name in columns}
    return {name: values for name, values in columns.items() if good[name]}
