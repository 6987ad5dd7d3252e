"""Pairs to calibrate on: all of two tables, those of a benchmark's setting."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest

import benchmarks.search.scored_pairs
from benchmarks.errors import ProtocolError, SearchError
from benchmarks.scoring.results import write_json
from benchmarks.search.scored_pairs import ScoredPairs, pairs_of_result, pairs_of_tables
from tests.benchmarks.runs import FACTS, Noisy, score, write_result
from tests.benchmarks.search.vectors import METADATA, people_vectors, units


def as_set(pairs):
    people = np.sort(pairs.identities, axis=1)
    return sorted(
        zip(
            pairs.scores.astype(float).round(6).tolist(),
            pairs.genuine.tolist(),
            (people[:, 0] == people[:, 1]).tolist(),
            strict=False,
        )
    )


def naive(gallery, probes, names, probe_names, paths, probe_paths):
    found = []
    for row, column in itertools.product(range(len(probes)), range(len(gallery))):
        if probe_paths[row] != paths[column]:
            same = probe_names[row] == names[column]
            found.append((round(float(np.float32(probes[row].astype(float) @ gallery[column])), 6), same, same))
    return sorted(found)


def test_all_pairs_of_two_tables(write):
    gallery, probes = units(6, 8), units(5, 8, seed=3)
    names, probe_names = list("abcabd"), list("abzdd")
    paths, probe_paths = [f"x/{row}" for row in range(6)], ["x/0", "y/1", "y/2", "x/5", "y/4"]
    first = write("g.parquet", gallery, paths=paths, identities=names)
    second = write("p.parquet", probes, paths=probe_paths, identities=probe_names, metadata={**METADATA, "down": "8"})
    pairs = pairs_of_tables(first, second)
    assert as_set(pairs) == naive(gallery, probes, names, probe_names, paths, probe_paths)
    assert len(np.unique(pairs.identities)) == 5
    assert pairs.network == {"digest": "00ff", "backbone": "x"}
    assert pairs.source == {
        "pairs": f"{first} and {second}",
        **{f"gallery_{name}": METADATA.get(name, "") for name in ("alignment", "down", "group", "weights")},
        "probes_alignment": "none",
        "probes_down": "8",
        "probes_group": "",
        "probes_weights": "",
    }


def test_a_table_with_itself_gives_each_pair_once(write):
    vectors = units(7, 8)
    path = write("g.parquet", vectors, identities="aabbccd", bad={4})
    pairs = pairs_of_tables(path, path)
    kept = [0, 1, 2, 3, 5, 6]
    expected = [
        (round(float(np.float32(vectors[i].astype(float) @ vectors[j])), 6), "aabbccd"[i] == "aabbccd"[j])
        for i, j in itertools.combinations(kept, 2)
    ]
    assert [pair[:2] for pair in as_set(pairs)] == sorted(expected)


def test_rows_without_identity_are_in_no_pair(write):
    path = write("g.parquet", units(5, 8), identities="aabba")
    table = pq.read_table(path)
    pq.write_table(table.set_column(5, "identity", [["a", None, "", "b", "a"]]), path)
    assert as_set(pairs_of_tables(path, path)) == as_set(
        pairs_of_tables(*[write("h.parquet", units(5, 8)[[0, 3, 4]], identities="aba")] * 2)
    )


def test_of_many_pairs_some_of_each_kind_are_drawn(write, monkeypatch):
    monkeypatch.setattr(benchmarks.search.scored_pairs, "MAX_PAIRS", 100)
    vectors, who = people_vectors(30, 10, 8, 0.3)
    path = write("g.parquet", vectors, identities=who)
    pairs = pairs_of_tables(path, path)
    assert (pairs.genuine.sum(), (~pairs.genuine).sum()) == (100, 100)
    assert len({tuple(row) for row in np.c_[pairs.scores, pairs.identities]}) == 200
    assert len(np.unique(pairs.identities)) == 30
    np.testing.assert_array_equal(pairs_of_tables(path, path).scores, pairs.scores)
    assert (pairs.identities[:, 0] == pairs.identities[:, 1]).tolist() == pairs.genuine.tolist()


def test_tables_without_identities_or_of_other_networks_are_refused(write):
    named, plain = write("a.parquet", units(3, 8), identities="abc"), write("b.parquet", units(3, 8))
    with pytest.raises(SearchError) as error:
        pairs_of_tables(named, plain)
    assert str(error.value) == (
        f"{plain}: does not say who is on its images; embed them with --identity folder, --identity prefix, or --group"
    )
    other = write("c.parquet", units(3, 8), identities="abc", metadata={**METADATA, "digest": "1"})
    with pytest.raises(SearchError, match="embedded by different networks"):
        pairs_of_tables(named, other)


def scored(genuine, impostors, people, effect=0.3):
    rng = np.random.default_rng(0)
    kind = np.arange(genuine + impostors) < genuine
    first = np.arange(len(kind)) % people
    return ScoredPairs(
        scores=np.where(kind, effect, 0.0) + rng.normal(0, 0.1, len(kind)),
        genuine=kind,
        identities=np.stack([first, np.where(kind, first, (first + 1) % people)], axis=1),
        network={"digest": "d"},
        source={"pairs": "x"},
    )


def test_few_pairs_or_people_are_refused():
    assert scored(50, 200, 20).calibrate().counts == {"genuine": 50, "impostors": 200, "people": 20}
    needed = "a calibration needs 50 genuine pairs of 20 people and 200 impostor pairs, or more of each"
    for counts, found in (
        ((49, 200, 20), "49 genuine pairs of 20 people and 200 impostor pairs"),
        ((50, 199, 20), "50 genuine pairs of 20 people and 199 impostor pairs"),
        ((50, 200, 19), "50 genuine pairs of 19 people and 200 impostor pairs"),
        ((0, 200, 20), "0 genuine pairs of 0 people and 200 impostor pairs"),
    ):
        with pytest.raises(SearchError) as error:
            scored(*counts).calibrate()
        assert str(error.value) == f"x: {found}; {needed}"


def test_many_genuine_pairs_of_one_person_are_not_enough():
    pairs = scored(500, 300, 30)
    pairs.identities[pairs.genuine] = 7
    with pytest.raises(SearchError, match="500 genuine pairs of 1 person and 300 impostor pairs; a calibration needs"):
        pairs.calibrate()


def test_scores_without_information_are_refused():
    with pytest.raises(SearchError, match="genuine pairs do not score higher than impostors"):
        scored(100, 300, 30, effect=-0.1).calibrate()


def test_the_pairs_of_a_benchmark(demo, tmp_path):
    result = score("lfw", demo("LFW"))
    path = write_result(tmp_path / "r.json", result)
    samples = result.settings["lr-lr/{}@8"]
    pairs = pairs_of_result(path, "lfw/lr-lr@8")
    np.testing.assert_array_equal(pairs.scores, samples.scores)
    np.testing.assert_array_equal(pairs.genuine, samples.genuine)
    assert pairs.network == {"digest": FACTS["digest"], "backbone": FACTS["backbone"]}
    assert pairs.source["pairs"] == "lfw/lr-lr@8"
    for setting, said in ((None, "has several sets of pairs"), ("lfw@9", "has no lfw@9")):
        with pytest.raises(SearchError) as error:
            pairs_of_result(path, setting)
        message = str(error.value)
        assert message.startswith(
            f"{path}: {said}; choose --setting from lfw@8, lfw@12, lfw@16, lfw@20, lfw@128, lfw/lr-"
        )


def test_pairs_of_several_networks_are_distinguished(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    digests = ["0123456789ab", "fedcba987654", "fedcba987654"]
    results = [
        score("qmul", root, Noisy(20 * number), checkpoint={**FACTS, "digest": digest})
        for number, digest in enumerate(digests)
    ]
    write_json(results, tmp_path / "r.json")
    names = ["qmul:01234567", "qmul:fedcba98", "qmul:fedcba98-2"]
    for name, result in zip(names, results, strict=True):
        pairs = pairs_of_result(tmp_path / "r.json", name)
        np.testing.assert_array_equal(pairs.scores, result.settings["{}"].scores)
        assert pairs.network["digest"] == result.checkpoint["digest"]
    with pytest.raises(SearchError, match=f"has several sets of pairs; choose --setting from {', '.join(names)}$"):
        pairs_of_result(tmp_path / "r.json", None)


def test_results_without_pairs_or_network_are_refused(demo, tmp_path):
    path = write_result(tmp_path / "r.json", score("scface", demo("SCface")))
    with pytest.raises(SearchError, match="has no scores of pairs; calibrate on two files of embed --identity"):
        pairs_of_result(path, None)
    nameless = {name: value for name, value in FACTS.items() if name != "digest"}
    path = write_result(tmp_path / "r.json", score("qmul", demo("QMUL-SurvFace"), checkpoint=nameless))
    with pytest.raises(ProtocolError, match="does not say which network was scored; score it again"):
        pairs_of_result(path, None)
    path = write_result(tmp_path / "r.json", score("qmul", demo("QMUL-SurvFace")))
    assert pairs_of_result(path, None).source["pairs"] == "qmul"
