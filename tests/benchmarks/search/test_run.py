"""Searches of tables: every probe has its rows, the best matches first."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

import benchmarks.search.queries
import benchmarks.search.table
from benchmarks.errors import SearchError
from benchmarks.search.calibration import read_calibration
from benchmarks.search.run import Summary, search_tables
from benchmarks.search.scored_pairs import pairs_of_tables
from tests.benchmarks.search.vectors import METADATA, naive, units


def rows(path):
    return pq.read_table(path).to_pylist()


def test_each_probe_has_its_matches_in_order_or_a_reason(write, tmp_path):
    gallery, probes = units(9, 8), units(4, 8, seed=3)
    names = [f"g/\u00e4 {row}\u4e2d.jpg" for row in range(9)]
    first = write("g.parquet", gallery, paths=names, identities="aabbccddd", bad={4})
    second = write("p.parquet", probes, paths=["p/0", "p/1", "p/2", "p/3"], identities="xyzx", bad={1})
    summary = search_tables(first, second, tmp_path / "out" / "m.parquet", top=3)
    assert summary == Summary(gallery=8, gallery_unusable=1, probes=3, probes_unusable=1)
    found = rows(tmp_path / "out" / "m.parquet")
    assert [row["probe"] for row in found] == ["p/0"] * 3 + ["p/1"] + ["p/2"] * 3 + ["p/3"] * 3
    kept = [row for row in range(9) if row != 4]
    scores, places = naive(probes[[0, 2, 3]], gallery[kept], 3)
    matched = [row for row in found if row["status"] == "ok"]
    assert [row["gallery"] for row in matched] == [names[kept[place]] for place in places.ravel()]
    assert [row["identity"] for row in matched] == ["aabbccddd"[kept[place]] for place in places.ravel()]
    assert [row["score"] for row in matched] == scores.ravel().tolist()
    assert [row["rank"] for row in matched] == [1, 2, 3] * 3
    assert [row["probe_identity"] for row in found] == list("xxxyzzzxxx")
    assert {row["log10_lr"] for row in found} == {None}
    (bad,) = (row for row in found if row["status"] != "ok")
    assert {name: value for name, value in bad.items() if value is not None} == {
        "probe": "p/1",
        "probe_identity": "y",
        "status": "unusable-image",
        "error_message": "empty file",
    }
    metadata = pq.read_schema(tmp_path / "out" / "m.parquet").metadata
    assert metadata[b"digest"] == b"00ff"
    assert (metadata[b"index"], metadata[b"top"], metadata[b"calibration"]) == (b"exact", b"3", b"")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["m.parquet"]


def test_the_matches_do_not_depend_on_memory(write, tmp_path, monkeypatch):
    first, second = write("g.parquet", units(200, 8), bad={3}), write("p.parquet", units(50, 8, seed=3), bad={49})
    expected = search_tables(first, second, tmp_path / "a.parquet", top=4)
    monkeypatch.setattr(benchmarks.search.table, "BLOCK_BYTES", 4 * 8 * 9)
    monkeypatch.setattr(benchmarks.search.table, "NAME_ROWS", 13)
    monkeypatch.setattr(benchmarks.search.queries, "PASS_MATCHES", 4 * 20)
    assert search_tables(first, second, tmp_path / "b.parquet", top=4) == expected
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 1
    assert pq.ParquetFile(tmp_path / "b.parquet").num_row_groups > 2
    assert rows(tmp_path / "a.parquet") == rows(tmp_path / "b.parquet")


def test_a_photograph_is_not_compared_with_itself(write, tmp_path):
    vectors = units(6, 8)
    vectors[5] = vectors[0]
    one = write("x.parquet", vectors)
    assert search_tables(one, one, tmp_path / "m.parquet", top=2).same_path == 6
    found = rows(tmp_path / "m.parquet")
    assert len(found) == 12
    assert all(row["gallery"] != row["probe"] for row in found)
    assert (found[0]["gallery"], found[0]["score"]) == ("g/5.jpg", 1)


def test_paths_may_repeat_in_both_tables(write, tmp_path):
    first = write("g.parquet", units(4, 8), paths=["a", "b", "a", "c"])
    second = write("p.parquet", units(3, 8, seed=2), paths=["a", "a", "z"])
    assert search_tables(first, second, tmp_path / "m.parquet", top=9).same_path == 4
    found = [(row["probe"], row["gallery"]) for row in rows(tmp_path / "m.parquet")]
    assert sorted(found) == sorted([("a", "b"), ("a", "c")] * 2 + [("z", name) for name in "abac"])


def test_millions_of_pairs_of_one_path_are_refused(write, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks.search.queries, "MAX_SAME", 8)
    one = write("x.parquet", units(3, 8), paths=["a", "a", "a"])
    with pytest.raises(SearchError, match="millions of pairs with the probes have one path"):
        search_tables(one, one, tmp_path / "m.parquet")


def test_a_probe_that_is_alone_in_the_gallery_says_so(write, tmp_path):
    one = write("x.parquet", units(1, 8))
    search_tables(one, one, tmp_path / "m.parquet")
    (row,) = rows(tmp_path / "m.parquet")
    assert (row["rank"], row["status"], row["error_message"]) == (None, "no-match", "the gallery has no other image")


def test_an_edited_row_without_embedding_says_so(write, tmp_path):
    table = pq.read_table(write("p.parquet", units(3, 8), paths="xyz", bad={1}))
    table = table.set_column(3, "status", [["ok", "ok", "ok"]]).set_column(4, "error_message", [[None, "?", None]])
    pq.write_table(table, tmp_path / "p.parquet")
    search_tables(write("g.parquet", units(2, 8)), tmp_path / "p.parquet", tmp_path / "m.parquet", top=1)
    found = rows(tmp_path / "m.parquet")
    assert [(row["probe"], row["status"]) for row in found] == [("x", "ok"), ("y", "no-embedding"), ("z", "ok")]
    assert found[1]["error_message"] == "the table has no embedding of it"


def test_probes_in_the_folder_of_a_template_are_counted(write, tmp_path):
    gallery = write(
        "g.parquet", units(2, 8), paths=["faces/Ann", "faces/Bob"], identities=["Ann", "Bob"],
        metadata={**METADATA, "group": "folder"},
    )  # fmt: skip
    probes = write("p.parquet", units(3, 8), paths=["faces/Ann/1.jpg", "faces/Ann/2.jpg", "other/Ann/1.jpg"])
    assert search_tables(gallery, probes, tmp_path / "m.parquet").in_template == 2
    gallery = write("g.parquet", units(1, 8), paths=["faces/001"], metadata={**METADATA, "group": "prefix"})
    probes = write("p.parquet", units(2, 8), paths=["faces/001_cam1_1.jpg", "faces/002_cam1_1.jpg"])
    assert search_tables(gallery, probes, tmp_path / "m.parquet").in_template == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("digest", "beef", "(digest 00ff and beef)"),
        ("preprocessing", '{"size": 112}', '(preprocessing {"size": 128} and {"size": 112})'),
        ("flip", "mean", "(flip none and mean)"),
    ],
)
def test_tables_of_different_networks_are_refused(write, tmp_path, name, value, said):
    first = write("g.parquet", units(2, 8))
    second = write("p.parquet", units(2, 8), metadata={**METADATA, name: value})
    with pytest.raises(SearchError) as error:
        search_tables(first, second, tmp_path / "m.parquet")
    assert str(error.value) == (
        f"{first} and {second}: embedded by different networks or preprocessing {said}; embed both with the same --network"
    )


def test_embeddings_of_different_lengths_are_refused(write, tmp_path):
    first, second = write("g.parquet", units(2, 8)), write("p.parquet", units(2, 9))
    with pytest.raises(SearchError, match=r"embeddings of 8 and of 9 numbers; embed both with the same --network"):
        search_tables(first, second, tmp_path / "m.parquet")


def test_files_may_have_names_that_are_not_utf8(write, tmp_path, calibrated):
    name = os.fsdecode(b"g:\xff \xc3\xa4.parquet")
    path = write(name, units(40, 8), identities=np.repeat(range(20), 2))
    calibration = calibrated(source=pairs_of_tables(path, path).source)
    calibration.write(tmp_path / "c.json")
    search_tables(path, path, tmp_path / "m.parquet", calibration=read_calibration(tmp_path / "c.json"))
    assert pq.read_schema(tmp_path / "m.parquet").metadata[b"gallery"] == f"{tmp_path}/g:\\xff \u00e4.parquet".encode()


def test_a_failure_in_the_last_row_leaves_no_file(write, tmp_path):
    vectors = units(5000, 8)
    vectors[4999] = np.nan
    first, second = write("g.parquet", vectors), write("p.parquet", units(2, 8))
    (tmp_path / "out").mkdir()
    with pytest.raises(SearchError, match=r"row 4999 \(g/4999.jpg\): the embedding is not finite"):
        search_tables(first, second, tmp_path / "out" / "m.parquet")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_calibration_is_kept_in_the_file(write, tmp_path, calibrated):
    calibration = calibrated(slope=10.0, intercept=-4.0, scores=(-0.5, 0.9), bounds=(-2.0, 3.0))
    gallery, probes = units(50, 8), units(5, 8, seed=4)
    probes[0] = gallery[3]
    summary = search_tables(
        write("g.parquet", gallery), write("p.parquet", probes, paths="abcde"), tmp_path / "m.parquet",
        top=50, calibration=calibration,
    )  # fmt: skip
    found = rows(tmp_path / "m.parquet")
    assert summary.bounded == sum(row["lr_bounded"] for row in found)
    assert len(found) == 250
    for row in found:
        expected = min(max(-4 + 10 * min(max(row["score"], -0.5), 0.9), -2), 3)
        assert row["log10_lr"] == pytest.approx(expected, abs=1e-5)
        assert row["log10_lr_low"] <= row["log10_lr"] <= row["log10_lr_high"]
        assert row["lr_bounded"] == (not -0.5 <= row["score"] <= 0.9 or not -2 <= -4 + 10 * row["score"] <= 3)
    assert {row["lr_bounded"] for row in found} == {True, False}
    kept = json.loads(pq.read_schema(tmp_path / "m.parquet").metadata[b"calibration"])
    assert kept == json.loads(json.dumps(calibration.to_dict()))


@pytest.mark.parametrize(
    ("network", "said"),
    [({"digest": "beef"}, "(digest 00ff, calibration beef)"), ({"flip": "mean"}, "(flip none, calibration mean)")],
)
def test_a_calibration_of_another_network_is_refused(write, tmp_path, calibrated, network, said):
    calibration = calibrated(network={"digest": "00ff", "backbone": "x", **network})
    path = write("g.parquet", units(2, 8))
    with pytest.raises(SearchError) as error:
        search_tables(path, path, tmp_path / "m.parquet", calibration=calibration)
    assert str(error.value) == (
        f"{path}: embedded by another network or preprocessing than the calibration's {said};"
        " calibrate with scores of this network"
    )


def test_conditions_that_differ_from_the_calibration_are_reported(write, tmp_path, calibrated):
    calibration = calibrated(source={"pairs": "x", "gallery_down": "", "probes_down": "8", "probes_alignment": "none"})
    first = write("g.parquet", units(2, 8))
    second = write("p.parquet", units(2, 8), metadata={**METADATA, "alignment": "landmarks"})
    found = search_tables(first, second, tmp_path / "m.parquet", calibration=calibration).differences
    assert found == [
        "probes: alignment landmarks, calibrated with none",
        "probes: down none, calibrated with 8",
    ]
