"""Names and numbers as people write them: networks, metrics, settings, percentages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.scoring.intervals import Interval, has_width

ABSENT = "-"
_FULL_SIZE = ("lfw", "@128")  # LFW's metrics call a network's full size 128, whatever it is
_CONDITIONS = {"@d1": "4.2 m", "@d2": "2.6 m", "@d3": "1.0 m", "@full": "full size"}
_METRICS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "eer": "EER",
    "std": "standard deviation of accuracy over folds",
    "map": "mAP",
    "threshold@eer": "threshold at EER",
}
_RATE = re.compile(r"(?:(threshold)@)?(?:(tar|tpir\d+)@)?(far|fpir)=(.+)")
_DIGEST_DIGITS = 8  # shown where two networks have the same label


def network_label(checkpoint: Mapping[str, Any]) -> str:
    """The name that the user gave, or else backbone and step; with what is unusual, such as ``net, step 9, bf16``."""
    return _with_conditions(_name(checkpoint), checkpoint)


def network_labels(checkpoints: Sequence[Mapping[str, Any]]) -> list[str]:
    """Distinct labels of several networks; see ``network_names``."""
    return [_with_conditions(*one) for one in zip(network_names(checkpoints), checkpoints, strict=True)]


def network_names(checkpoints: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels without the conditions; where labels are equal, with digits of the digest, or else a number."""
    names, labels = [_name(one) for one in checkpoints], [network_label(one) for one in checkpoints]
    names = [
        f"{name}, {str(one.get('digest'))[:_DIGEST_DIGITS]}" if labels.count(label) > 1 else name
        for name, label, one in zip(names, labels, checkpoints, strict=True)
    ]
    labels = [_with_conditions(*one) for one in zip(names, checkpoints, strict=True)]
    return [
        f"{name} ({labels[:place].count(labels[place]) + 1})" if labels.count(labels[place]) > 1 else name
        for place, name in enumerate(names)
    ]


def _name(checkpoint: Mapping[str, Any]) -> str:
    name, step = checkpoint.get("name"), checkpoint.get("step")
    if isinstance(name, str) and name:
        return name
    return f"{checkpoint.get('backbone', 'network')}{'' if step is None else f', step {step:,}'}"


def _with_conditions(name: str, checkpoint: Mapping[str, Any]) -> str:
    """Adds a reduced precision, flip fusion, and how images were degraded, if not by the bicubic filter alone."""
    precision, flip, degradation = (checkpoint.get(one) for one in ("precision", "flip", "degradation"))
    name = name if precision in (None, "fp32") else f"{name}, {precision}"
    name = f"{name}, flip {flip}" if isinstance(flip, str) else name
    return f"{name}, {degradation}" if isinstance(degradation, str) else name


def percent(value: float | None) -> str:
    """Formats a fraction in percent, without the sign."""
    return ABSENT if value is None else f"{100 * value:.2f}"


def percent_range(interval: Interval | None) -> str:
    """Formats an interval of fractions in percent, without the sign; one without width is not shown."""
    return ABSENT if interval is None or not has_width(interval) else f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}"


def rate(value: float) -> str:
    """Formats a rate such as a FAR: ``0.1 %``."""
    return f"{100 * value:.4g} %"


def setting_label(setting: str, benchmark: str = "") -> str:
    """A setting's title: ``lr-lr/{}@8`` -> ``LR to LR, 8 px``, ``{}@d1/51-130`` -> ``4.2 m, subjects 51-130``.

    Empty for the only setting of a benchmark.
    """
    prefix, _, suffix = setting.partition("{}")
    condition, _, subjects = suffix.partition("/")
    known = {**_CONDITIONS, _FULL_SIZE[1]: "full size"} if benchmark == _FULL_SIZE[0] else _CONDITIONS
    name = known.get(condition, f"{condition[1:]} px" if condition else "")
    return ", ".join(filter(None, [prefix_label(prefix), name, f"subjects {subjects}" if subjects else ""]))


def prefix_label(prefix: str) -> str:
    """What stands before the names of metrics: ``open/lr-lr/`` -> ``open set, LR to LR``."""
    parts = ["open set" * prefix.startswith("open/"), "LR to LR" * prefix.endswith("lr-lr/")]
    return ", ".join(filter(None, parts))


def statistic_label(name: str) -> str:
    """A metric or a threshold without its setting: ``tar@far=0.01`` -> ``TAR at FAR 1 %``."""
    if match := _RATE.fullmatch(name):
        threshold, true_rate, false_rate, number = match.groups()
        return f"{threshold or true_rate.upper()} at {false_rate.upper()} {rate(float(number))}"
    return re.sub(r"^rank(\d+)$", r"rank-\1", _METRICS.get(name, name))
