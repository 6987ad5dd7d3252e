"""What is known of the networks of a report: who they are, how they were trained and measured."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from benchmarks.report import plots
from benchmarks.report.document import Grid, Picture, Section
from benchmarks.report.labels import ABSENT, network_labels
from benchmarks.report.style import drawing, legend_label
from benchmarks.scoring.intervals import ROUNDS
from benchmarks.scoring.results import Scores

TRAINING = "training"  # stem of the pictures of training curves
_FACTS = {
    "path": "file",
    "backbone": "backbone",
    "step": "step",
    "parameters": "parameters",
    "digest": "digest",
    "training_data": "training data",
    "training": "training configuration",
    "precision": "precision",
    "device": "device",
    "gpu": "GPU",
    "flip": "flip fusion",
    "degradation": "degradation of the images",
}
_SHOWN = ("backbone", "step", "parameters", "training_data", "digest")
_MEASURED = ("date", "command", "processor", "cores", "memory_gb")
MAX_DRAWN = 1e15  # in curves: axes fail on the largest numbers
_DATE = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\+00:00$")


def network_grid(results: Sequence[Scores]) -> Grid:
    """A row for each result, which are of different networks: backbone, step, parameters, digest, when it was scored."""
    labels = network_labels([result.checkpoint for result in results])
    rows = [
        [
            label,
            *(_value(result.checkpoint.get(name)) for name in _SHOWN),
            _value(result.measurement.get("date")),
        ]
        for label, result in zip(labels, results, strict=True)
    ]
    header = ["", *(_FACTS[name] for name in _SHOWN), "scored"]
    return Grid(caption="Networks", header=header, rows=rows, wraps=True)


def training_pictures(results: Sequence[Scores]) -> list[Picture]:
    """The training curves of the networks whose run is known; each result is of another network."""
    pictures = []
    labels = network_labels([result.checkpoint for result in results])
    for number, (label, result) in enumerate(zip(labels, results, strict=True)):
        if curves := _curves(result.checkpoint.get("curves")):
            figure = plots.training(f"Training of {legend_label(label)}", curves)
            stem = TRAINING + (f"-{number + 1}" if number else "")
            pictures.append(Picture(stem=stem, alt=f"training curves of {label}", files=drawing(figure)))
    return pictures


def methods(results: Sequence[Scores]) -> Section:
    """How it was measured; each result is of another network."""
    labels = network_labels([result.checkpoint for result in results])
    return Section(
        title="How it was measured",
        text=[
            "Similarity is the cosine of two embeddings. 95 % intervals: Wilson's for proportions, chi-squared for"
            f" standard deviations, percentile bootstrap over identities ({ROUNDS} rounds) for other metrics. EER: where"
            " FAR and 1 - TAR are equal, by linear interpolation. A threshold is the lowest cosine whose acceptance keeps"
            " the false rate at or below the stated one.",
            *(
                [
                    "Bold: better than every other network, by paired bootstrap intervals over identities. Differences: paired"
                    " 95 % intervals, unless all resamples give the same value; * marks those that exclude zero."
                ]
                * (len(results) > 1)
            ),
        ],
        grids=[_facts(label, result) for label, result in zip(labels, results, strict=True)],
    )


def _facts(label: str, result: Scores) -> Grid:
    facts = [(title, result.checkpoint.get(name)) for name, title in _FACTS.items()]
    facts.append(("preprocessing", result.preparation))
    facts += [(name.replace("_gb", ", GB"), result.measurement.get(name)) for name in _MEASURED]
    facts.append(("versions", result.versions))
    rows = [[title, _value(value)] for title, value in facts if value not in (None, "", {}, [])]
    return Grid(caption=label, header=["", ""], rows=rows, wraps=True)


def _value(value: Any) -> str:
    """A JSON value in words: ``seed: 0; views: 128, 8``."""
    if value is None or value == "":
        return ABSENT
    if isinstance(value, dict):
        return "; ".join(f"{name.replace('_', ' ')}: {_value(one)}" for name, one in value.items())
    if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        return ", ".join(map(str, value))
    if isinstance(value, str):
        return _DATE.sub(r"\1 \2 UTC", value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)


def _curves(record: Any) -> dict[str, list[tuple[float, float]]]:
    """Curves by name; empty if the record, which may come from anywhere, has another form."""
    columns = {str(name): _numbers(values) for name, values in record.items()} if isinstance(record, dict) else {}
    steps = columns.pop("step", [])
    return {
        re.sub(r"@(\d+)$", r", \1 px", name): list(zip(steps, values, strict=True))
        for name, values in columns.items()
        if values and len(values) == len(steps)
    }


def _numbers(values: Any) -> list[float]:
    """Two or more numbers that can be drawn; else none."""
    good = isinstance(values, list) and len(values) > 1
    return values if good and all(type(one) in (int, float) and abs(one) <= MAX_DRAWN for one in values) else []
