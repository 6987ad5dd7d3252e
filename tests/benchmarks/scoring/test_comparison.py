"""Paired comparisons: which results can be paired, and the intervals of the differences."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from benchmarks import BENCHMARKS
from benchmarks.errors import ProtocolError
from benchmarks.scoring.comparison import Comparison, compare_networks, read_networks
from benchmarks.scoring.saved import read_results
from tests.benchmarks.runs import Noisy, clearer, score, write_result


def test_paired_intervals_of_a_network_with_itself_are_zero(demo, tmp_path):
    path = write_result(tmp_path / "a.json", score("qmul", demo("QMUL-SurvFace")))
    (comparison,), others = compare_networks(read_networks([path, path]))
    assert others == {}
    (intervals,) = comparison.intervals
    assert set(intervals) == set(comparison.results[0].metrics) - {"std"}
    assert set(intervals.values()) == {(0.0, 0.0)}


@pytest.mark.usefixtures("all_resamples")
def test_paired_intervals_use_the_same_draws(demo, tmp_path):
    """The paired interval of a small difference is much narrower than either network's own interval."""
    root = demo("QMUL-SurvFace")
    first, other = score("qmul", root, intervals=True), score("qmul", root, Noisy(1.0))
    paths = [write_result(tmp_path / "a.json", first), write_result(tmp_path / "b.json", other)]
    (comparison,), _ = compare_networks(read_networks(paths))
    low, high = comparison.intervals[0]["auc"]
    assert low <= other.metrics["auc"] - first.metrics["auc"] <= high
    assert high - low < np.ptp(first.intervals["auc"]) / 2


def test_other_pairs_or_probes_cannot_be_paired(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    whole = write_result(tmp_path / "a.json", score("qmul", root))
    next((root / "Face_Verification_Test_Set" / "verification_images").iterdir()).unlink()
    part = write_result(tmp_path / "b.json", score("qmul", root, allow_missing=True))
    with pytest.raises(ProtocolError, match=r"b\.json: qmul: scored on other pairs or probes than .*a\.json"):
        compare_networks(read_networks([whole, part]))
    other = write_result(tmp_path / "c.json", score("tinyface", demo("TinyFace")))
    with pytest.raises(ProtocolError, match="no benchmark in common"):
        compare_networks(read_networks([whole, other]))


@pytest.mark.parametrize(
    ("name", "lost", "other"),
    [
        ("scface", "00?_cam1_1.jpg", "00?_cam2_1.jpg"),
        ("tinyface", "Gallery_Distractor/*", "Gallery_Distractor/*"),
        ("qmul-id", "gallery/*", "gallery/*"),
    ],
)
def test_the_same_number_of_other_images_cannot_be_paired(demo, tmp_path, name, lost, other):
    """Both have the same probe identities and gallery size; a single image differs."""

    def partial(file, pattern, which, embed=None):
        root = demo(BENCHMARKS[name].folder)
        sorted(root.rglob(pattern))[which].write_bytes(b"")
        return write_result(tmp_path / file, score(name, root, embed, allow_missing=True))

    first, again = partial("a.json", lost, 0), partial("b.json", lost, 0, Noisy(1.0))
    (comparison,), _ = compare_networks(read_networks([first, again]))
    assert [result.partial for result in comparison.results] == [True, True]
    second = partial("c.json", other, 0 if lost != other else 1)
    first_record, second_record = (read_results(path)[0].settings for path in (first, second))
    for setting, samples in first_record.items():
        assert np.array_equal(samples.identities, second_record[setting].identities)
    with pytest.raises(ProtocolError, match=r"c\.json: [\w-]+: scored on other pairs or probes than .*a\.json; score"):
        compare_networks(read_networks([first, second]))


def test_copies_of_a_data_set_can_be_paired(demo, tmp_path):
    first = write_result(tmp_path / "a.json", score("lfw", demo("LFW")))
    shutil.copytree(tmp_path / "LFW", tmp_path / "elsewhere" / "LFW")
    second = write_result(tmp_path / "b.json", score("lfw", tmp_path / "elsewhere" / "LFW"))
    assert len(compare_networks(read_networks([first, second]))[0]) == 1


def test_the_best_network_beats_every_other_one(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    good, bad = clearer(score("qmul", root)), score("qmul", root, Noisy(3000.0))
    assert Comparison([bad, good, bad]).best("auc") == 1
    assert Comparison([bad, good, bad]).best("eer") == 1  # the lowest one
    assert Comparison([good, good, bad]).best("auc") is None  # two are equally good
    assert Comparison([bad, good]).best("std") is None  # not resampled
    with pytest.raises(KeyError):
        Comparison([bad, good]).best("nothing")


def test_intervals_that_a_file_lacks_are_those_that_scoring_computes(demo):
    result = score("qmul", demo("QMUL-SurvFace"), intervals=True)
    own = Comparison([result, result]).own_intervals(0)
    names = {"tar@far=0.3", "auc", "eer", "threshold@far=0.3", "threshold@eer"}
    assert names <= set(own)
    stated = {**result.intervals, **result.threshold_intervals}
    assert {name: own[name] for name in names} == {name: stated[name] for name in names}
