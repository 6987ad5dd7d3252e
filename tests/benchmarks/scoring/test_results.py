"""Results as JSON."""

from __future__ import annotations

import json

import pytest

from benchmarks.scoring.results import write_json
from benchmarks.scoring.saved import read_results
from pipeline.spec import Preprocessing
from tests.benchmarks.conftest import FACTS, score


@pytest.mark.parametrize("name", ["lfw", "scface", "qmul", "qmul-id", "tinyface", "xqlfw"])
def test_json_round_trip(demo, tmp_path, name):
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
    assert (content["data"], content["doubts"]) == (str(tmp_path / folder), ["generated faces"])
    assert set(content["versions"]) == {"lrfr", "python", "torch", "numpy", "opencv", "pillow"}
    (saved,) = read_results(tmp_path / "a" / "x.json")
    for setting, samples in result.settings.items():
        assert saved.settings[setting].metrics() == samples.metrics()
        assert saved.settings[setting].same_protocol(samples)


@pytest.mark.parametrize("results", ["lfw", [], [{"benchmark": "lfw"}], None])
def test_what_are_no_results_is_not_written(tmp_path, results):
    with pytest.raises(
        TypeError, match=r"^results is .*, expected a list of one or several results, as run\(\) returns"
    ):
        write_json(results, str(tmp_path / "x.json"))
    with pytest.raises(TypeError, match=r"^path is None, expected a path, as text or pathlib\.Path$"):
        write_json(results, None)
    assert list(tmp_path.iterdir()) == []


def test_several_results_in_one_file(demo, tmp_path):
    results = [score("qmul", demo("QMUL-SurvFace")), score("tinyface", demo("TinyFace"))]
    write_json(results, str(tmp_path / "all.json"))
    assert json.loads((tmp_path / "all.json").read_text())["benchmark"] == "all"
    assert [result.benchmark for result in read_results(tmp_path / "all.json")] == ["qmul", "tinyface"]
