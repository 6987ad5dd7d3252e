"""Tables of a user's own benchmarks, from the names of their metrics."""

from __future__ import annotations

import pytest

from benchmarks.report.labels import setting_label
from benchmarks.report.own_tables import kind_label, own_label, tables_of


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("accuracy@8", "HR to LR, accuracy, 8 px"),
        ("lr-lr/auc@12", "LR to LR, AUC, 12 px"),
        ("tar@far=0.001@full", "TAR at FAR 0.1 %, full size"),
        ("tar@far=1e-05@8", "HR to LR, TAR at FAR 0.001 %, 8 px"),
        ("open/lr-lr/tpir1@fpir=0.3@16", "open set, LR to LR, TPIR1 at FPIR 30 %, 16 px"),
        ("map@full", "mAP, full size"),
        ("rank20@8", "HR to LR, rank-20, 8 px"),
    ],
)
def test_metrics_have_labels(name, label):
    assert own_label(name) == label
    assert kind_label(name) in label


def test_names_of_another_form_stay_as_they_are():
    assert own_label("accuracy") is None
    assert kind_label("x/accuracy@8") is None


def test_pairs_have_a_table_for_each_metric_and_direction():
    kinds = ("tar@far=0.01", "auc", "accuracy", "std", "unknown")
    names = [f"{kind}@{size}" for size in (9, "full") for kind in kinds] + [f"lr-lr/{kind}@9" for kind in kinds]
    tables = {table.title: list(table.columns.items()) for table in tables_of("pairs", names)}
    assert list(tables) == [
        f"{side}, {kind}" for kind in ("accuracy", "AUC", "TAR at FAR 1 %") for side in ("HR to LR", "LR to LR")
    ]
    assert tables["HR to LR, AUC"] == [("auc@9", "9 px"), ("auc@full", "full size")]
    assert tables["LR to LR, AUC"] == [("lr-lr/auc@9", "9 px")]
    (table,) = tables_of("pairs", ["accuracy@full", "std@full", "auc@full"])
    assert (table.title, table.columns) == ("full size", {"accuracy@full": "accuracy", "auc@full": "AUC"})


def test_identification_has_all_at_full_size_and_rank_1_by_size():
    closed = [f"{kind}@{size}" for size in (8, "full") for kind in ("rank1", "rank5", "map")] + ["lr-lr/rank1@8"]
    titles = ["full size", "HR to LR, rank-1", "LR to LR, rank-1"]
    assert [table.title for table in tables_of("identify", closed)] == titles
    rates = [f"tpir1@fpir={rate}" for rate in ("0.3", "0.1", "0.01")]
    opened = [f"open/{kind}@{size}" for size in (8, "full") for kind in (*rates, "auc")]
    tables = {table.title: list(table.columns.values()) for table in tables_of("identify", closed + opened)}
    assert list(tables)[3:] == [
        "open set, full size",
        "open set, HR to LR, TPIR1 at FPIR 10 %",
        "open set, HR to LR, TPIR1 at FPIR 1 %",
    ]
    assert tables["open set, full size"] == [*(f"TPIR1 at FPIR {rate} %" for rate in (30, 10, 1)), "AUC"]
    assert [table.title for table in tables_of("identify", ["rank1@full"])] == ["full size"]


def test_settings_have_labels():
    assert setting_label("open/lr-lr/{}@8") == "open set, LR to LR, 8 px"
    assert setting_label("open/{}@full") == "open set, full size"
    assert setting_label("lr-lr/{}@8") == "LR to LR, 8 px"
