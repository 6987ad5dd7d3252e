"""Results as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os

import pytest

from benchmarks.scoring.results import Scores, write_json
from benchmarks.scoring.saved import read_results
from pipeline.spec import Preprocessing
from tests.benchmarks.runs import FACTS, score


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
    assert set(content["threshold_intervals"]) == set(content["thresholds"])
    assert content["thresholds"] == result.thresholds
    assert content["preprocessing"] == Preprocessing().to_dict()
    assert content["checkpoint"] == FACTS
    assert (content["data"], content["doubts"]) == (str(tmp_path / folder), ["generated faces"])
    assert set(content["versions"]) == {"lrfr", "python", "torch", "numpy", "opencv", "pillow"}
    (saved,) = read_results(tmp_path / "a" / "x.json")
    for field in dataclasses.fields(Scores):
        if field.name != "settings":  # compared below
            assert getattr(saved, field.name) == getattr(result, field.name)
    assert (saved.thresholds, saved.preparation) == (result.thresholds, result.preparation)
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


@pytest.mark.parametrize("name", ["qmul", "tinyface"])
def test_files_of_earlier_versions_are_read(demo, tmp_path, name):
    """They lack EER, thresholds, date and hardware; the samples have what the first two need."""
    result = score(name, demo({"qmul": "QMUL-SurvFace", "tinyface": "TinyFace"}[name]), intervals=True)
    record = json.loads(json.dumps(result.to_dict()))
    for added in ("measurement", "thresholds", "threshold_intervals", "histograms"):
        del record[added]
    for values in (record["metrics"], record["intervals"]):
        for added in [key for key in values if "eer" in key]:
            del values[added]
    (tmp_path / "old.json").write_text(json.dumps(record))
    (saved,) = read_results(tmp_path / "old.json")
    assert saved.metrics == result.metrics
    assert saved.thresholds == result.thresholds
    assert saved.measurement == {}
    least = {key: record[key] for key in ("benchmark", "title", "metrics", "checkpoint", "partial", "samples")}
    (tmp_path / "least.json").write_text(json.dumps(least))
    (saved,) = read_results(tmp_path / "least.json")
    assert (saved.metrics, saved.main) == (result.metrics, next(iter(result.metrics)))


def test_histograms_count_every_score(demo, tmp_path):
    result = score("lfw", demo("LFW"))
    histograms = result.to_dict()["histograms"]
    assert list(histograms) == ["edges", *result.settings]
    assert (histograms["edges"][0], histograms["edges"][-1], len(histograms["edges"])) == (-1, 1, 81)
    pairs = histograms["lr-lr/{}@8"]
    assert {kind: sum(counts) for kind, counts in pairs.items()} == {"genuine": 30, "impostors": 30}
    samples = result.settings["lr-lr/{}@8"]
    low, high = histograms["edges"][60:62]
    assert pairs["genuine"][60] == int(((samples.scores >= low) & (samples.scores < high) & samples.genuine).sum())


def test_results_say_when_where_and_by_which_command(demo, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/x/cli.py", "bench", "qmul", "--json", "a b.json"])
    measured = score("qmul", demo("QMUL-SurvFace")).measurement
    assert measured["command"] == "python /x/cli.py bench qmul --json 'a b.json'"
    moment = datetime.datetime.fromisoformat(measured["date"])
    assert abs((datetime.datetime.now(datetime.UTC) - moment).total_seconds()) < 3600
    assert measured["cores"] == len(os.sched_getaffinity(0))
    assert measured["processor"]
    assert measured["memory_gb"] > 0.1
