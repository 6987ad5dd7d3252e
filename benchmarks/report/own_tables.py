"""Tables of a user's own benchmarks, whose sizes and rates vary: built from the names of the metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable

from benchmarks.report.published import TABLES, Table

OWN = ("pairs", "identify")  # a user's own benchmarks
_NAME = re.compile(r"(?P<open>open/)?(?P<lr>lr-lr/)?(?P<metric>[^@/]+(?:@f\w+=[^@/]+)?)@(?P<size>full|\d+)")
_RATE = re.compile(r"(tar|tpir1)@(far|fpir)=(.+)")
_OTHERS = {"auc": "AUC", "map": "mAP", "eer": "EER", "std": "standard deviation of accuracy over folds"}
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
    return ", ".join(["open set"] * bool(match["open"]) + [*place, _title(match["metric"]), _size(match["size"])])


def kind_label(name: str) -> str | None:
    """As ``own_label``, whatever the size: ``tar@far=0.001@8`` -> ``TAR at FAR 0.1 %``."""
    match = _NAME.fullmatch(name)
    return match and _title(match["metric"])


def _pair_tables(parsed: dict[str, re.Match[str]]) -> list[Table]:
    """A table for each metric, HR to LR and LR to LR, with a column a size."""
    kinds = dict.fromkeys(match["metric"] for match in parsed.values() if _is_shown(match["metric"]))
    order = sorted(kinds, key=lambda kind: (kind != "accuracy", kind != "auc", kind == "eer"))  # stable
    if all(match["size"] == "full" for match in parsed.values()):
        return [Table(title="full size", columns={f"{kind}@full": _title(kind) for kind in order})]
    return [
        Table(
            title=f"{'LR to LR' if lr else 'HR to LR'}, {_title(kind)}",
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
            name: _title(match["metric"])
            for name, match in parsed.items()
            if match["size"] == "full" and bool(match["open"]) == is_open and _is_shown(match["metric"])
        }
        tables.append(Table(title=f"{prefix}full size", columns=full))
        for kind in [f"tpir1@fpir={rate:g}" for rate in _OPEN_BY_SIZE] if is_open else ["rank1"]:
            for lr in (False, True):
                columns = _by_size(parsed, kind, lr=lr)
                title = f"{prefix}{'LR to LR' if lr else 'HR to LR'}, {_title(kind)}"
                columns = columns if any("full" not in name for name in columns) else {}
                tables.append(Table(title=title, columns=columns, figure="" if is_open else _figure(lr=lr)))
    return tables


def _figure(*, lr: bool) -> str:
    return "resolution-lr-lr" if lr else "resolution"


def _by_size(parsed: dict[str, re.Match[str]], kind: str, *, lr: bool) -> dict[str, str]:
    return {
        name: _size(match["size"])
        for name, match in parsed.items()
        if match["metric"] == kind and bool(match["lr"]) == lr
    }


def _is_shown(kind: str) -> bool:
    return kind in ("accuracy", "auc", "map", "eer") or kind.startswith("rank") or _RATE.fullmatch(kind) is not None


def _title(kind: str) -> str:
    """``tar@far=0.01`` -> ``TAR at FAR 1 %``."""
    if match := _RATE.fullmatch(kind):
        return f"{match[1].upper()} at {match[2].upper()} {100 * float(match[3]):.4g} %"
    return _OTHERS.get(kind) or re.sub(r"^rank(\d+)$", r"rank-\1", kind)


def _size(size: str) -> str:
    return "full size" if size == "full" else f"{size} px"
