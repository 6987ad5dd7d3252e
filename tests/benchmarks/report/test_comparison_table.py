"""Tables of compared networks."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.errors import ProtocolError
from benchmarks.report.comparison_table import comparison_tables, named
from benchmarks.scoring.comparison import read_networks
from benchmarks.scoring.results import write_json
from tests.benchmarks.runs import FACTS, Noisy, clearer, score, write_result


def test_a_network_compared_with_itself(demo, tmp_path):
    path = write_result(tmp_path / "a.json", score("qmul", demo("QMUL-SurvFace")))
    (grid,) = comparison_tables(read_networks([path, path])).grids
    assert grid.header == ["", "A", "B", "B - A"]
    for name, first, second, difference in grid.rows:
        assert first == second
        unresolved = name in ("TAR at FAR 1 %", "TAR at FAR 0.1 %")
        assert difference == ("-" if unresolved else "+0.00")  # an interval without width says nothing
        assert (first == "-") == unresolved


def test_a_worse_network_differs_significantly(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    good = write_result(tmp_path / "good.json", clearer(score("qmul", root)))
    bad = write_result(tmp_path / "bad.json", score("qmul", root, Noisy(3000.0), checkpoint={**FACTS, "step": 1}))
    found = comparison_tables(read_networks([good, bad, good]))
    (grid,) = found.grids
    assert grid.header == ["", "A", "B", "B - A", "C", "C - A"]
    row = next(row for row in grid.rows if row[0] == "AUC")
    assert float(row[2]) < float(row[1]) - 10
    assert float(row[3].split()[0]) == pytest.approx(float(row[2]) - float(row[1]), abs=0.011)
    assert row[3].endswith("*")
    assert found.legend[:2] == [f"A: spherenet4, step 7, {good}", f"B: spherenet4, step 1, {bad}"]
    assert found.legend[3] == (
        "B - A: difference to the first network; [..]: its paired 95 % bootstrap interval over identities,"
        " unless all resamples give the same value; *: the interval excludes zero"
    )


def test_benchmarks_that_only_some_files_have_are_named(demo, tmp_path):
    qmul = score("qmul", demo("QMUL-SurvFace"))
    lfw, tinyface = (dataclasses.replace(qmul, benchmark=name) for name in ("lfw", "tinyface"))
    for name, results in {"a": [lfw, qmul], "b": [qmul, tinyface], "c": [qmul, tinyface]}.items():
        write_json(results, tmp_path / f"{name}.json")
    found = comparison_tables(read_networks([tmp_path / f"{name}.json" for name in "abc"]))
    assert len(found.grids) == 1
    assert found.legend[4:] == ["lfw: not compared, only in A", "tinyface: not compared, only in B, C"]


def test_each_table_marks_its_partial_results(demo, tmp_path):
    """In a file of several results only one may be partial."""
    whole = score("qmul", demo("QMUL-SurvFace"))
    root = demo("TinyFace")
    next((root / "Testing_Set" / "Gallery_Distractor").iterdir()).write_bytes(b"")
    write_json([whole, score("tinyface", root, allow_missing=True)], tmp_path / "all.json")
    qmul, tinyface = comparison_tables(read_networks([tmp_path / "all.json", tmp_path / "all.json"])).grids
    assert qmul.header == ["", "A", "B", "B - A"]
    assert tinyface.header == ["", "A (partial)", "B (partial)", "B - A"]


def test_the_legend_states_a_reduced_precision(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    full = write_result(tmp_path / "a.json", score("qmul", root))
    half = write_result(tmp_path / "b.json", score("qmul", root, checkpoint={**FACTS, "precision": "bf16"}))
    assert comparison_tables(read_networks([full, half])).legend[:2] == [
        f"A: spherenet4, step 7, {full}",
        f"B: spherenet4, step 7, bf16, {half}",
    ]


def test_rows_have_the_names_and_the_order_of_the_tables(demo, tmp_path):
    path = write_result(tmp_path / "a.json", score("lfw", demo("LFW")))
    (grid,) = comparison_tables(read_networks([path, path])).grids
    names = [row[0] for row in grid.rows]
    assert names[0] == "HR to LR, accuracy, 8 px"
    assert names.index("LR to LR, accuracy, 20 px") < names.index("HR to LR, AUC, 8 px")
    assert not [name for name in names if "@" in name]


def test_a_file_may_hold_several_networks(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    first, other = score("qmul", root), score("qmul", root, Noisy(1.0), checkpoint={**FACTS, "digest": "11ee"})
    write_json([first, other], tmp_path / "both.json")
    networks = read_networks([tmp_path / "both.json"])
    assert [network.results["qmul"].metrics for network in networks] == [first.metrics, other.metrics]
    assert comparison_tables(networks).grids[0].header == ["", "A", "B", "B - A"]
    write_json([first, first], tmp_path / "twice.json")
    with pytest.raises(ProtocolError, match=r"twice\.json: two results of one network on qmul; score it once, or give"):
        read_networks([tmp_path / "twice.json"])


def test_networks_get_distinct_names(demo, tmp_path):
    path = write_result(tmp_path / "a.json", score("qmul", demo("QMUL-SurvFace")))
    networks = read_networks([path, path])
    labels = [network.results["qmul"].checkpoint["name"] for network in named(networks)]
    assert labels == ["spherenet4, step 7, 00ff (1)", "spherenet4, step 7, 00ff (2)"]
    labels = [network.results["qmul"].checkpoint["name"] for network in named(networks, ["x", "y"])]
    assert labels == ["x", "y"]
    assert comparison_tables(named(networks, ["x", "y"])).legend[:2] == [f"A: x, {path}", f"B: y, {path}"]
