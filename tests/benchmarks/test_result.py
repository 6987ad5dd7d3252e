"""Results as JSON and back, and networks compared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.compare import compare, legend
from benchmarks.errors import ProtocolError
from benchmarks.result import read_results, write_json
from benchmarks.samples import PairSamples, from_dict
from shards.schema import Preprocessing
from tests.benchmarks.conftest import FACTS, Recorder, score


class Noisy(Recorder):
    """A worse network: the thumbnail drowns in noise that depends on the image alone."""

    def __init__(self, level):
        super().__init__()
        self.level = level

    def __call__(self, images):
        clean = super().__call__(images)
        noise = [np.random.default_rng(int(image.sum())).normal(size=clean.shape[1]) for image in images]
        return clean + self.level * np.array(noise, np.float32)


@pytest.mark.parametrize("name", ["lfw", "scface", "qmul", "qmul-id", "tinyface", "xqlfw"])
def test_the_result_as_json_and_back(demo, tmp_path, name):
    folder = {"lfw": "LFW", "scface": "SCface", "tinyface": "TinyFace", "xqlfw": "XQLFW"}.get(name, "QMUL-SurvFace")
    if name == "xqlfw":
        demo("LFW")
    result = score(name, demo(folder), intervals=True)
    write_json([result], tmp_path / "a" / "x.json")
    content = json.loads((tmp_path / "a" / "x.json").read_text())
    expected = {"benchmark", "metrics", "intervals", "counts", "checkpoint", "preprocessing", "versions"}
    assert expected <= set(content)
    assert content["metrics"] == result.metrics
    assert {key: tuple(value) for key, value in content["intervals"].items()} == result.intervals
    assert set(content["intervals"]) == set(content["metrics"])
    assert content["preprocessing"] == Preprocessing().to_dict()
    assert content["checkpoint"] == FACTS
    assert content["data"] == f"{tmp_path / folder} (generated faces)"
    (saved,) = read_results(tmp_path / "a" / "x.json")
    for setting, samples in result.settings.items():
        assert saved.settings[setting].figures() == samples.figures()
        assert saved.settings[setting].same_questions(samples)


def test_several_results_in_one_file(demo, tmp_path):
    results = [score("qmul", demo("QMUL-SurvFace")), score("tinyface", demo("TinyFace"))]
    write_json(results, tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text())["benchmark"] == "all"
    assert [result.benchmark for result in read_results(tmp_path / "all.json")] == ["qmul", "tinyface"]


def write(path, result):
    write_json([result], path)
    return path


def test_a_network_compared_with_itself_differs_by_nothing(demo, tmp_path):
    path = write(tmp_path / "a.json", score("qmul", demo("QMUL-SurvFace")))
    (grid,) = compare([path, path])
    assert grid.header == ["", "A", "B", "B - A"]
    for name, ours, theirs, difference in grid.rows:
        assert ours == theirs
        expected = "+0.00" if name == "std" else "+0.00 [+0.0, +0.0] "
        assert difference == expected


def test_a_worse_network_is_found_worse(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    good = write(tmp_path / "good.json", score("qmul", root))
    bad = write(tmp_path / "bad.json", score("qmul", root, Noisy(3000.0), checkpoint={**FACTS, "step": 1}))
    (grid,) = compare([good, bad, good])
    assert grid.header == ["", "A", "B", "B - A", "C", "C - A"]
    row = next(row for row in grid.rows if row[0] == "auc")
    assert float(row[2]) < float(row[1]) - 10
    assert float(row[3].split()[0]) == pytest.approx(float(row[2]) - float(row[1]), abs=0.011)
    assert row[3].endswith("*")
    assert legend([good, bad])[:2] == [f"A: spherenet4, step 7, {good}", f"B: spherenet4, step 1, {bad}"]


def test_paired_differences_are_those_of_the_same_draws(demo, tmp_path):
    """The paired interval of a small, constant difference is much narrower than either network's own interval."""
    root = demo("QMUL-SurvFace")
    first = score("qmul", root, intervals=True)
    paths = [write(tmp_path / "a.json", first), write(tmp_path / "b.json", score("qmul", root, Noisy(1.0)))]
    (grid,) = compare(paths)
    row = next(row for row in grid.rows if row[0] == "auc")
    low, high = json.loads(row[3].split(" ", 1)[1].rstrip("* ").replace("+", ""))
    own = np.ptp(first.intervals["auc"]) * 100
    assert high - low < own / 2


def test_other_questions_are_refused(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    whole = write(tmp_path / "a.json", score("qmul", root))
    next((root / "Face_Verification_Test_Set" / "verification_images").iterdir()).unlink()
    part = write(tmp_path / "b.json", score("qmul", root, allow_missing=True))
    with pytest.raises(ProtocolError, match=r"b\.json: qmul: scored on other pairs or probes than .*a\.json"):
        compare([whole, part])
    other = write(tmp_path / "c.json", score("tinyface", demo("TinyFace")))
    with pytest.raises(ProtocolError, match="no benchmark in common"):
        compare([whole, other])


@pytest.mark.parametrize(
    "text", ["", "nonsense", "{}", "[1]", '{"benchmark": "qmul", "samples": {"{}": {"kind": "x"}}}']
)
def test_a_file_that_is_no_result_is_one_line(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ProtocolError, match=r"x\.json: not a result that bench --json wrote") as error:
        read_results(tmp_path / "x.json")
    assert "\n" not in str(error.value)
    with pytest.raises(ProtocolError, match=r"nothing\.json: No such file"):
        read_results(tmp_path / "nothing.json")


def test_samples_survive_the_journey_with_their_types():
    samples = PairSamples(
        identities=np.array([[0, 1], [2, 2]], np.int32),
        scores=np.array([0.1, 0.9], np.float32),
        genuine=np.array([False, True]),
        folds=np.array([0, 1], np.int16),
        rates=np.array([0.1]),
    )
    again = from_dict(json.loads(json.dumps(samples.to_dict())))
    for name in ("identities", "scores", "genuine", "folds", "rates"):
        ours, theirs = getattr(samples, name), getattr(again, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
