"""Names of networks, metrics and settings."""

from __future__ import annotations

import pytest

from benchmarks.report.labels import network_label, network_labels, percent_range, setting_label, statistic_label
from benchmarks.report.own_tables import metric_labels, threshold_labels

FACTS = {"backbone": "spherenet4", "step": 1000, "precision": "fp32", "digest": "0123456789abcdef"}


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "spherenet4, step 1,000"),
        ({"precision": "bf16"}, "spherenet4, step 1,000, bf16"),
        ({"step": None}, "spherenet4"),
        ({"name": "mine"}, "mine"),
        ({"name": "mine", "precision": "bf16"}, "mine, bf16"),
        ({"name": ""}, "spherenet4, step 1,000"),
        ({"name": 7}, "spherenet4, step 1,000"),
    ],
)
def test_the_label_of_a_network(changes, label):
    assert network_label({**FACTS, **changes}) == label


def test_networks_of_one_label_are_distinguished():
    other = {**FACTS, "digest": "fedcba9876543210"}
    assert network_labels([FACTS, other]) == ["spherenet4, step 1,000, 01234567", "spherenet4, step 1,000, fedcba98"]
    assert network_labels([FACTS, FACTS, other]) == [
        "spherenet4, step 1,000, 01234567 (1)",
        "spherenet4, step 1,000, 01234567 (2)",
        "spherenet4, step 1,000, fedcba98",
    ]
    half = {**FACTS, "precision": "bf16"}
    assert network_labels([FACTS, half]) == ["spherenet4, step 1,000", "spherenet4, step 1,000, bf16"]
    assert network_labels([{**FACTS, "name": "a"}, {**other, "name": "b"}]) == ["a", "b"]


def test_a_resolution_is_written_in_one_way(results):
    labels = {name: metric_labels(name, result.settings) for name, result in results.items()}
    everything = [label for one in labels.values() for label in one.values()]
    assert len(everything) > 60
    assert not [label for label in everything if "@" in label]
    assert labels["lfw"]["accuracy@8"] == "HR to LR, accuracy, 8 px"
    assert labels["lfw"]["lr-lr/std@8"] == "standard deviation of accuracy over folds, LR to LR, 8 px"
    assert labels["qmul"]["tar@far=0.001"] == "TAR at FAR 0.1 %"
    assert labels["scface"]["rank1@d1/51-130"] == "rank-1, subjects 51-130, 4.2 m"
    names = list(labels["lfw"])
    assert names.index("accuracy@8") < names.index("auc@8") < names.index("eer@8")
    assert list(labels["qmul"])[-4:] == ["accuracy", "auc", "eer", "std"]
    for name, result in results.items():
        assert set(labels[name]) == set(result.metrics)
        assert set(threshold_labels(result.benchmark, result.settings)) == set(result.thresholds)
    assert threshold_labels("lfw", results["lfw"].settings)["threshold@eer@8"] == "threshold at EER, 8 px"


def test_names_of_settings_and_statistics():
    assert setting_label("lr-lr/{}@8") == "LR to LR, 8 px"
    assert setting_label("{}@d1/51-130") == "4.2 m, subjects 51-130"
    assert (setting_label("{}@full"), setting_label("{}")) == ("full size", "")
    assert setting_label("{}@128", "lfw") == "full size"  # 112 px, if that is what the network takes
    assert setting_label("{}@128", "pairs") == "128 px"
    assert statistic_label("threshold@far=0.001") == "threshold at FAR 0.1 %"
    assert statistic_label("tpir20@fpir=0.3") == "TPIR20 at FPIR 30 %"
    assert (statistic_label("rank10"), statistic_label("map"), statistic_label("new")) == ("rank-10", "mAP", "new")


def test_intervals_without_width_are_not_shown():
    assert percent_range((0.5, 0.5 + 1e-12)) == "-"
    assert percent_range((0.5, 0.5001)) == "50.0-50.0"
    assert percent_range(None) == "-"
