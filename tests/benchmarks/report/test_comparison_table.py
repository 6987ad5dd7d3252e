"""Tables of compared networks."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.report.comparison_table import compare
from benchmarks.scoring.results import write_json
from tests.benchmarks.conftest import FACTS, Noisy, score, write_result


def test_a_network_compared_with_itself(demo, tmp_path):
    path = write_result(tmp_path / "a.json", score("qmul", demo("QMUL-SurvFace")))
    (grid,) = compare([path, path]).grids
    assert grid.header == ["", "A", "B", "B - A"]
    for name, first, second, difference in grid.rows:
        assert first == second
        unresolved = name in ("tar@far=0.01", "tar@far=0.001")
        assert difference == ("-" if unresolved else "+0.00")  # an interval without width says nothing
        assert (first == "-") == unresolved


def test_a_worse_network_differs_significantly(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    good = write_result(tmp_path / "good.json", score("qmul", root))
    bad = write_result(tmp_path / "bad.json", score("qmul", root, Noisy(3000.0), checkpoint={**FACTS, "step": 1}))
    found = compare([good, bad, good])
    (grid,) = found.grids
    assert grid.header == ["", "A", "B", "B - A", "C", "C - A"]
    row = next(row for row in grid.rows if row[0] == "auc")
    assert float(row[2]) < float(row[1]) - 10
    assert float(row[3].split()[0]) == pytest.approx(float(row[2]) - float(row[1]), abs=0.011)
    assert row[3].endswith("*")
    assert found.legend[:2] == [f"A: spherenet4, step 7, {good}", f"B: spherenet4, step 1, {bad}"]
    assert found.legend[3] == (
        "B - A: difference to the first file; [..]: its paired 95 % bootstrap interval over identities,"
        " unless all resamples give the same value; *: the interval excludes zero"
    )


def test_benchmarks_that_only_some_files_have_are_named(demo, tmp_path):
    qmul = score("qmul", demo("QMUL-SurvFace"))
    lfw, tinyface = (dataclasses.replace(qmul, benchmark=name) for name in ("lfw", "tinyface"))
    for name, results in {"a": [lfw, qmul], "b": [qmul, tinyface], "c": [qmul, tinyface]}.items():
        write_json(results, tmp_path / f"{name}.json")
    found = compare([tmp_path / f"{name}.json" for name in "abc"])
    assert len(found.grids) == 1
    assert found.legend[4:] == ["lfw: not compared, only in A", "tinyface: not compared, only in B, C"]


def test_each_table_marks_its_partial_results(demo, tmp_path):
    """In a file of several results only one may be partial."""
    whole = score("qmul", demo("QMUL-SurvFace"))
    root = demo("TinyFace")
    next((root / "Testing_Set" / "Gallery_Distractor").iterdir()).write_bytes(b"")
    write_json([whole, score("tinyface", root, allow_missing=True)], tmp_path / "all.json")
    qmul, tinyface = compare([tmp_path / "all.json", tmp_path / "all.json"]).grids
    assert qmul.header == ["", "A", "B", "B - A"]
    assert tinyface.header == ["", "A (partial)", "B (partial)", "B - A"]


def test_the_legend_states_a_reduced_precision(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    full = write_result(tmp_path / "a.json", score("qmul", root))
    half = write_result(tmp_path / "b.json", score("qmul", root, checkpoint={**FACTS, "precision": "bf16"}))
    assert compare([full, half]).legend[:2] == [
        f"A: spherenet4, step 7, {full}",
        f"B: spherenet4, step 7, bf16, {half}",
    ]
