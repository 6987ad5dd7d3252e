"""Results as JSON and back, and networks compared."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest

from benchmarks import BENCHMARKS
from benchmarks.errors import ProtocolError
from benchmarks.report.comparison_table import compare
from benchmarks.scoring.arrays import decode_array, encode_array
from benchmarks.scoring.results import write_json
from benchmarks.scoring.samples import PairSamples, from_dict
from benchmarks.scoring.saved import read_results
from pipeline.spec import Preprocessing
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
    assert (content["data"], content["doubts"]) == (str(tmp_path / folder), ["generated faces"])
    assert set(content["versions"]) == {"lrfr", "python", "torch", "numpy", "opencv", "pillow"}
    (saved,) = read_results(tmp_path / "a" / "x.json")
    for setting, samples in result.settings.items():
        assert saved.settings[setting].metrics() == samples.metrics()
        assert saved.settings[setting].same_protocol(samples)


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
    (grid,) = compare([path, path]).grids
    assert grid.header == ["", "A", "B", "B - A"]
    for name, ours, theirs, difference in grid.rows:
        assert ours == theirs
        unresolved = name in ("tar@far=0.01", "tar@far=0.001")
        expected = "-" if unresolved else "+0.00" if name == "std" else "+0.00 [+0.0, +0.0] "
        assert difference == expected
        assert (ours == "-") == unresolved


def test_a_worse_network_is_found_worse(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    good = write(tmp_path / "good.json", score("qmul", root))
    bad = write(tmp_path / "bad.json", score("qmul", root, Noisy(3000.0), checkpoint={**FACTS, "step": 1}))
    found = compare([good, bad, good])
    (grid,) = found.grids
    assert grid.header == ["", "A", "B", "B - A", "C", "C - A"]
    row = next(row for row in grid.rows if row[0] == "auc")
    assert float(row[2]) < float(row[1]) - 10
    assert float(row[3].split()[0]) == pytest.approx(float(row[2]) - float(row[1]), abs=0.011)
    assert row[3].endswith("*")
    assert found.legend[:2] == [f"A: spherenet4, step 7, {good}", f"B: spherenet4, step 1, {bad}"]
    assert found.legend[3] == (
        "B - A: difference to the first file; [..]: its paired 95 % bootstrap interval over identities;"
        " *: the interval excludes zero"
    )


def test_paired_differences_are_those_of_the_same_draws(demo, tmp_path):
    """The paired interval of a small, constant difference is much narrower than either network's own interval."""
    root = demo("QMUL-SurvFace")
    first = score("qmul", root, intervals=True)
    paths = [write(tmp_path / "a.json", first), write(tmp_path / "b.json", score("qmul", root, Noisy(1.0)))]
    (grid,) = compare(paths).grids
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
    ("name", "lost", "other"),
    [
        ("scface", "00?_cam1_1.jpg", "00?_cam2_1.jpg"),
        ("tinyface", "Gallery_Distractor/*", "Gallery_Distractor/*"),
        ("qmul-id", "gallery/*", "gallery/*"),
    ],
)
def test_as_many_other_images_are_other_questions(demo, tmp_path, name, lost, other):
    """Both are of as many probes of the same people against as large a gallery; only one image is not the same."""

    def partial(file, pattern, which, embed=None):
        root = demo(BENCHMARKS[name].folder)
        sorted(root.rglob(pattern))[which].write_bytes(b"")
        return write(tmp_path / file, score(name, root, embed, allow_missing=True))

    first, again = partial("a.json", lost, 0), partial("b.json", lost, 0, Noisy(1.0))
    assert compare([first, again]).grids[0].header == ["", "A (partial)", "B (partial)", "B - A"]
    second = partial("c.json", other, 0 if lost != other else 1)
    first_record, second_record = (read_results(path)[0].settings for path in (first, second))
    for setting, samples in first_record.items():
        assert np.array_equal(samples.identities, second_record[setting].identities)
    with pytest.raises(ProtocolError, match=r"c\.json: [\w-]+: scored on other pairs or probes than .*a\.json; score"):
        compare([first, second])


def test_copies_of_a_data_set_in_two_places_ask_the_same(demo, tmp_path):
    first = write(tmp_path / "a.json", score("lfw", demo("LFW")))
    shutil.copytree(tmp_path / "LFW", tmp_path / "elsewhere" / "LFW")
    assert compare([first, write(tmp_path / "b.json", score("lfw", tmp_path / "elsewhere" / "LFW"))]).grids


def test_partial_is_told_of_each_table(demo, tmp_path):
    """Of a file with several results the second may be the partial one."""
    whole = score("qmul", demo("QMUL-SurvFace"))
    root = demo("TinyFace")
    next((root / "Testing_Set" / "Gallery_Distractor").iterdir()).write_bytes(b"")
    write_json([whole, score("tinyface", root, allow_missing=True)], tmp_path / "all.json")
    qmul, tinyface = compare([tmp_path / "all.json", tmp_path / "all.json"]).grids
    assert qmul.header == ["", "A", "B", "B - A"]
    assert tinyface.header == ["", "A (partial)", "B (partial)", "B - A"]


def test_the_precision_is_recorded_and_told(demo, tmp_path):
    root = demo("QMUL-SurvFace")
    full = write(tmp_path / "a.json", score("qmul", root))
    half = write(tmp_path / "b.json", score("qmul", root, checkpoint={**FACTS, "precision": "bf16"}))
    assert compare([full, half]).legend[:2] == [
        f"A: spherenet4, step 7, {full}",
        f"B: spherenet4, step 7, bf16, {half}",
    ]


@pytest.mark.parametrize(
    "text", ["", "nonsense", "{}", "[1]", '{"benchmark": "qmul", "samples": {"{}": {"kind": "x"}}}']
)
def test_a_file_that_is_no_result_is_one_line(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ProtocolError, match=r"x\.json: not a result written by bench --json") as error:
        read_results(tmp_path / "x.json")
    assert "\n" not in str(error.value)
    with pytest.raises(ProtocolError, match=r"nothing\.json: No such file"):
        read_results(tmp_path / "nothing.json")


@pytest.fixture(scope="module")
def record(_demo):
    return score("tinyface", _demo / "TinyFace").to_dict()


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (["benchmark"], ["qmul"], "benchmark: list, expected str"),
        (["metrics"], [], "metrics: list, expected dict"),
        (["metrics", "rank1"], None, "rank1: NoneType, expected float or int"),
        (["metrics", "rank1"], "0.5", "rank1: str, expected float or int"),
        (["metrics", "rank1"], float("nan"), "metrics rank1: nan, expected a fraction"),
        (["metrics", "rank1"], ..., "rank1: missing"),
        (["checkpoint"], "x.pt", "checkpoint: str, expected dict"),
        (["checkpoint", "step"], "7", "step: str, expected int or NoneType"),
        (["checkpoint", "precision"], ..., "precision: missing"),
        (["partial"], "no", "partial: str, expected bool"),
        (["samples"], {}, "samples: empty"),
        (["samples"], {"{0.__class__}": {}}, "samples {0.__class__}: not a valid setting name"),
        (["samples", "{}", "kind"], "x", "samples {}: 'x' is missing or unknown"),
        (["samples", "{}", "questions"], ..., "questions"),
        (["samples", "{}", "ranks"], [1], "samples {}: "),
        (["samples", "{}", "ranks", "dtype"], "|O", "dtype '|O', expected one of"),
        (["samples", "{}", "ranks", "shape"], [10**30], "samples {}: "),
    ],
)
def test_every_part_of_a_file_is_checked(record, tmp_path, place, value, says):
    content = copy.deepcopy(record)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    if value is ...:
        del inner[place[-1]]
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ProtocolError) as error:
        read_results(tmp_path / "x.json")
    assert str(error.value).startswith(f"{tmp_path}/x.json: not a result written by bench --json (")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ranks", lambda array: array[:-1]),
        ("ranks", lambda array: array * 0),
        ("ranks", lambda array: array.astype(np.float32)),
        ("identities", lambda array: array - 5),
        ("identities", lambda array: array + (1 << 30)),
        ("identities", lambda array: array[:0]),
        ("precisions", lambda array: array * np.nan),
        ("precisions", lambda array: array[:-1]),
        ("questions", lambda array: array[:-1]),
    ],
)
def test_arrays_of_a_file_are_checked(record, tmp_path, name, change):
    content = copy.deepcopy(record)
    samples = content["samples"]["{}"]
    samples[name] = encode_array(change(decode_array(samples[name])))
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ProtocolError, match=rf"x\.json: not a result written by bench --json \(samples {{}}: {name}: "):
        read_results(tmp_path / "x.json")


def test_a_file_of_brackets_and_an_empty_one_are_one_line(tmp_path):
    (tmp_path / "x.json").write_text("[" * 200_000)
    with pytest.raises(ProtocolError, match=r"x\.json: not a result written by bench --json"):
        read_results(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"benchmark": "all", "results": []}')
    with pytest.raises(ProtocolError, match=r"x\.json: contains no result; expected a file written by bench --json"):
        read_results(tmp_path / "x.json")


def test_samples_survive_the_journey_with_their_types():
    samples = PairSamples(
        protocol_digest=np.arange(16, dtype=np.uint8),
        identities=np.array([[0, 1], [2, 2]], np.int32),
        scores=np.array([0.1, 0.9], np.float32),
        genuine=np.array([False, True]),
        folds=np.array([0, 1], np.int16),
        rates=np.array([0.1]),
    )
    again = from_dict(json.loads(json.dumps(samples.to_dict())))
    for name in ("protocol_digest", "identities", "scores", "genuine", "folds", "rates"):
        ours, theirs = getattr(samples, name), getattr(again, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
