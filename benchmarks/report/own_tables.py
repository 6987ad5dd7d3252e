"""The tables of a benchmark and the titles of its metrics; those of a user's own benchmark, whose sizes and rates vary,
are built from the names of the metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from benchmarks.report.labels import setting_label, statistic_label
from benchmarks.report.published import TABLES, Table
from benchmarks.scoring.samples import Samples

OWN = ("pairs", "identify")  # a user's own benchmarks
_NAME = re.compile(r"(?P<open>open/)?(?P<lr>lr-lr/)?(?P<metric>[^@/]+(?:@f\w+=[^@/]+)?)@(?P<size>full|\d+)")
_OPEN_BY_SIZE = (0.1, 0.01)  # FPIRs with a table over all sizes


def tables_of(benchmark: str, metrics: Iterable[str]) -> list[Table]:
    """The tables of a benchmark; those of a user's own benchmark from the names of its metrics."""
    if benchmark not in OWN:
        return TABLES.get(benchmark, [])
    names = list(metrics)
    parsed = {name: match for name in names if (match := _NAME.fullmatch(name))}
    tables = _pair_tables(parsed) if benchmark == "pairs" else _identify_tables(parsed)
    return [table for table in tables if table.columns]


def own_label(name: str) -> str | None:
    """``accuracy@8`` -> ``HR to LR, accuracy, 8 px``; None for a name of another form."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    place = [] if match["size"] == "full" else ["LR to LR" if match["lr"] else "HR to LR"]
    return ", ".join(["open set"] * bool(match["open"]) + [*place, statistic_label(match["metric"]), _size(match)])


def kind_label(name: str) -> str | None:
    """As ``own_label``, whatever the size: ``tar@far=0.001@8`` -> ``TAR at FAR 0.1 %``."""
    match = _NAME.fullmatch(name)
    return match and statistic_label(match["metric"])


def _pair_tables(parsed: dict[str, re.Match[str]]) -> list[Table]:
    """A table for each metric, HR to LR and LR to LR, with a column a size."""
    kinds = dict.fromkeys(match["metric"] for match in parsed.values() if _is_shown(match["metric"]))
    order = sorted(kinds, key=lambda kind: (kind != "accuracy", kind != "auc", kind == "eer"))  # stable
    if all(match["size"] == "full" for match in parsed.values()):
        return [Table(title="full size", columns={f"{kind}@full": statistic_label(kind) for kind in order})]
    return [
        Table(
            title=f"{'LR to LR' if lr else 'HR to LR'}, {statistic_label(kind)}",
            columns=_by_size(parsed, kind, lr=lr),
            figure=_figure(lr=lr) if kind == "accuracy" else "",
            printed=kind != "eer",
        )
        for kind in order
        for lr in (False, True)
    ]


def _identify_tables(parsed: dict[str, re.Match[str]]) -> list[Table]:
    """All metrics at full size; rank-1, and TPIR at some rates, by size."""
    tables = []
    for is_open in (False, True):
        prefix = "open set, " if is_open else ""
        full = {
            name: statistic_label(match["metric"])
            for name, match in parsed.items()
            if match["size"] == "full" and bool(match["open"]) == is_open and _is_shown(match["metric"])
        }
        tables.append(Table(title=f"{prefix}full size", columns=full))
        for kind in [f"tpir1@fpir={rate:g}" for rate in _OPEN_BY_SIZE] if is_open else ["rank1"]:
            for lr in (False, True):
                columns = _by_size(parsed, kind, lr=lr)
                title = f"{prefix}{'LR to LR' if lr else 'HR to LR'}, {statistic_label(kind)}"
                columns = columns if any("full" not in name for name in columns) else {}
                tables.append(Table(title=title, columns=columns, figure="" if is_open else _figure(lr=lr)))
    return tables


def _figure(*, lr: bool) -> str:
    return "resolution-lr-lr" if lr else "resolution"


def _by_size(parsed: dict[str, re.Match[str]], kind: str, *, lr: bool) -> dict[str, str]:
    return {name: _size(match) for name, match in parsed.items() if match["metric"] == kind and bool(match["lr"]) == lr}


def _is_shown(kind: str) -> bool:
    return kind in ("accuracy", "auc", "map", "eer") or kind.startswith(("rank", "tar@far=", "tpir1@fpir="))


def _size(match: re.Match[str]) -> str:
    return setting_label(f"{{}}@{match['size']}")


def metric_labels(benchmark: str, settings: Mapping[str, Samples]) -> dict[str, str]:
    """The title of each metric, in the order of the tables: ``accuracy@8`` -> ``HR to LR, accuracy, 8 px``."""
    full = _labels(benchmark, {setting: samples.metrics() for setting, samples in settings.items()})
    tables = tables_of(benchmark, full)
    known = {name: table.label(name) for table in tables for name in table.columns if name in full}
    labels = {**known, **{name: label for name, label in full.items() if name not in known}}
    return {name: own_label(name) or label for name, label in labels.items()} if benchmark in OWN else labels


def threshold_labels(benchmark: str, settings: Mapping[str, Samples]) -> dict[str, str]:
    """The title of each threshold: ``threshold@far=0.01@8`` -> ``threshold at FAR 1 %, 8 px``."""
    return _labels(benchmark, {setting: samples.thresholds() for setting, samples in settings.items()})


def _labels(benchmark: str, names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The titles of the statistics called ``names`` of each setting, by full name."""
    return {
        setting.format(name): ", ".join(filter(None, [statistic_label(name), setting_label(setting, benchmark)]))
        for setting, of_setting in names.items()
        for name in of_setting
    }
