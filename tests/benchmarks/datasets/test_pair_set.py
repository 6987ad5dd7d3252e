"""bench pairs: .bin files of generated faces against the same pairs of LFW."""

from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
from sklearn.model_selection import KFold

from benchmarks.datasets.lfw import read_lfw
from benchmarks.datasets.pair_set import read_pair_set
from benchmarks.engine.checks import list_missing
from benchmarks.engine.runner import Engine, run
from benchmarks.errors import ProtocolError
from benchmarks.report.page import is_report_file, write_report
from benchmarks.scoring.comparison import compare_networks, read_networks
from pipeline.prepare import NoCropError, Request, prepare
from pipeline.sources.templates import crop_template
from pipeline.spec import Preprocessing
from tests.benchmarks.runs import FACTS, Noisy, Recorder, write_result
from tests.networks import save_small
from tests.processes import error_of

ARCFACE = Preprocessing(template="arcface", size=128)


def score(protocol, spec=ARCFACE, embed=None, **options):
    return run(protocol, Engine(embed=embed or Recorder(), spec=spec), checkpoint=FACTS, **options)


@pytest.fixture
def lfw(demo):
    return read_lfw(demo("LFW"))


@pytest.fixture
def pair_file(lfw, tmp_path):
    """Writes LFW's pairs as crops of some template into a .bin file, without loss."""

    def write(name="faces.bin", spec=ARCFACE, protocol=4, suffix=".png", genuine=None):
        files = {}
        for row in set(lfw.members["{}@128"].ravel().tolist()):
            (crop,) = prepare(lfw.requests[row].read(), [lfw.requests[row]], spec)
            files[row] = cv2.imencode(suffix, crop[..., ::-1])[1].tobytes()
        images = [files[row] for row in lfw.members["{}@128"].ravel().tolist()]
        path = tmp_path / name
        path.write_bytes(pickle.dumps((images, (lfw.genuine if genuine is None else genuine).tolist()), protocol))
        return path

    return write


def test_crops_score_as_the_photographs_that_they_come_from(lfw, pair_file):
    """Crops of the network's own template and size are taken as they are."""
    photographs, crops = score(lfw), score(read_pair_set(pair_file()))
    names = {name: name.replace("@128", "@full") for name in photographs.metrics}
    assert len(names) == 36
    assert {names[name]: value for name, value in photographs.metrics.items()} == {
        name: value for name, value in crops.metrics.items() if not name.startswith(("tar", "lr-lr/tar"))
    }
    assert {"tar@far=0.01@8", "tar@far=0.001@full", "lr-lr/tar@far=0.01@20"} <= set(crops.metrics)
    assert (crops.benchmark, crops.title, crops.main, crops.caveats) == ("pairs", "faces.bin", "accuracy@8", [])
    assert crops.counts["images"] == photographs.counts["images"] < 2 * crops.counts["pairs"]


@pytest.mark.parametrize(
    ("crop", "network"), [("arcface", "seed"), pytest.param("seed", "arcface", marks=pytest.mark.heavy)]
)
def test_crops_are_brought_to_the_networks_template(lfw, pair_file, crop, network):
    path = pair_file(spec=Preprocessing(template=crop, size=160))
    protocol = read_pair_set(path, crop)
    spec = Preprocessing(template=network)
    photographs, crops = Recorder(), Recorder()
    score(lfw, spec, photographs)
    score(protocol, spec, crops)
    score(protocol, Preprocessing(template=crop), wrong := Recorder())
    rows, theirs = (one.ravel() for one in (lfw.members["{}@128"], protocol.members["{}@full"]))

    def difference(recorder):
        """Mean levels between both, without the borders: a crop lacks what the other template shows beside it."""
        both = np.array(photographs.images, int)[rows], np.array(recorder.images, int)[theirs]
        return np.abs(both[0] - both[1])[:, 4:-4, 20:-20].mean((1, 2, 3))

    assert len(photographs.images) == len(crops.images) == len(protocol.requests)
    assert difference(crops).max() < 3
    assert difference(wrong).min() > 5 * difference(crops).max()


def test_images_of_no_template_are_resized_whole(pair_file):
    unaligned = Preprocessing.unaligned()
    path = pair_file(spec=Preprocessing(template="arcface", size=60))
    protocol = read_pair_set(path, "none")
    score(protocol, unaligned, seen := Recorder())
    (whole,) = prepare(protocol.requests[0].read(), [Request(path="x.png")], unaligned)
    np.testing.assert_array_equal(seen.images[0], whole)
    with pytest.raises(ProtocolError, match="was trained on unaligned images only"):
        score(read_pair_set(path), unaligned)


def test_people_are_those_that_genuine_pairs_and_equal_images_show(lfw, pair_file, capsys):
    protocol = read_pair_set(pair_file())
    folds = [test.tolist() for _, test in KFold(10).split(protocol.folds)]
    assert [np.flatnonzero(protocol.folds == fold).tolist() for fold in range(10)] == folds
    same = protocol.identities[:, 0] == protocol.identities[:, 1]
    np.testing.assert_array_equal(same, protocol.genuine)
    for people, names in zip(protocol.identities.T, lfw.identities.T, strict=True):
        for code in set(people.tolist()):  # one person may have several codes, but a code is one person's
            assert len(set(names[people == code].tolist())) == 1
    assert capsys.readouterr().err == ""


def test_contradicting_truth_values_are_reported(lfw, pair_file, capsys):
    flags = lfw.genuine.copy()
    rows = lfw.members["{}@128"]
    pairs = {tuple(sorted(pair)): index for index, pair in enumerate(rows.tolist())}
    triangle = next(
        (pairs[a, b], pairs[b, c], pairs[a, c])
        for a, b in pairs
        for c in {pair[1] for pair in pairs if pair[0] == b}
        if (a, c) in pairs and len({a, b, c}) == 3
    )
    flags[[*triangle]] = True, True, False
    path = pair_file(genuine=flags)
    read_pair_set(path)
    assert "images that genuine pairs give to one person; check the truth values" in capsys.readouterr().err


def test_results_are_compared_however_the_file_is_written(lfw, pair_file, tmp_path):
    first = write_result(tmp_path / "a.json", score(read_pair_set(pair_file("a.bin"))))
    again = read_pair_set(pair_file("b.bin", protocol=2))
    other = write_result(tmp_path / "b.json", score(again, embed=Noisy(500)))
    (comparison,) = compare_networks(read_networks([first, other]))[0]
    assert comparison.results[1].metrics["auc@full"] < comparison.results[0].metrics["auc@full"] - 0.05
    changed = write_result(tmp_path / "c.json", score(read_pair_set(pair_file(suffix=".jpg"))))
    with pytest.raises(ProtocolError, match="scored on other pairs or probes"):
        compare_networks(read_networks([first, changed]))


def test_an_unusable_image_is_named_by_its_number(pair_file, capsys):
    path = pair_file()
    images, flags = pickle.loads(path.read_bytes())
    images[2], images[4] = b"nonsense", cv2.imencode(".png", np.zeros((112, 96, 3), np.uint8))[1].tobytes()
    path.write_bytes(pickle.dumps((images, flags)))
    with pytest.raises(ProtocolError, match=r"^bench pairs: 2 unusable images, listed above"):
        score(read_pair_set(path))
    listed = capsys.readouterr().err
    assert f"{path}: image 3: cannot be decoded (8 bytes, not an image or damaged)" in listed
    assert f"{path}: image 5: 96x112 px, not the shape of crops of 112x112 px (arcface)" in listed
    partial = score(read_pair_set(path), allow_missing=True)
    assert partial.to_dict()["missing"][0] == {"path": f"{path}: image 3", "reason": partial.missing[0][1]}
    assert partial.counts["left_out"] == 2


@pytest.mark.parametrize(
    ("flags", "message"), [([True, False] * 4, "8 pairs, 4 of them genuine"), ([True] * 12, "12 pairs, 12 of them")]
)
def test_too_few_pairs_are_an_error(tmp_path, flags, message):
    path = tmp_path / "a.bin"
    path.write_bytes(pickle.dumps(([b"x"] * 2 * len(flags), flags)))
    with pytest.raises(ProtocolError) as error:
        read_pair_set(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert str(error.value).endswith("expected at least 10, genuine ones and others")


def test_a_crop_of_the_wanted_template_and_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    data = cv2.imencode(".png", image)[1].tobytes()
    request = Request(path="a.bin", template=crop_template("arcface"))
    (seen,) = prepare(data, [request], Preprocessing(template="arcface", size=112))
    np.testing.assert_array_equal(seen[..., ::-1], image)
    with pytest.raises(NoCropError, match="12x10 px, not the shape of crops of 112x112 px") as error:
        prepare(cv2.imencode(".png", image[:10, :12])[1].tobytes(), [request], Preprocessing())
    assert list_missing({"a.png": error.value}, "").startswith(
        "1 unusable image, listed above; name the template of the crops with --aligned; or"
    )


def test_the_command(run, pair_file, tmp_path):
    save_small(tmp_path / "x.pt")
    path = pair_file("cfp_fp.bin")
    words = ["--network", tmp_path / "x.pt", "--json", tmp_path / "a.json"]
    done = run("bench", "pairs", path, *words)
    assert done.returncode == 0, done.stderr
    assert "cfp_fp.bin: HR to LR, accuracy, %" in done.stdout
    assert "full size" in done.stdout
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["main"] == "accuracy@8"
    assert content["hardest"]["{}@full"]["genuine"][0]["first"].startswith(f"{path}: image ")
    again = run("bench", "compare", tmp_path / "a.json", tmp_path / "a.json")
    assert again.returncode == 0, again.stderr
    assert error_of(run("bench", "pairs", "none.bin", *words)).startswith("Error: none.bin: No such file")


@pytest.mark.heavy
def test_the_report_of_pairs(pair_file, tmp_path):
    result = score(read_pair_set(pair_file("cfp <fp>.bin", suffix=".jpg")), intervals=True)
    page = write_report([result], tmp_path / "report")
    names = {entry.name for entry in page.parent.iterdir()}
    assert {"report.html", "pairs.json", "pairs-roc.png", "pairs-resolution.png", "pairs-hardest-full.png"} <= names
    assert all(map(is_report_file, names))
    assert "cfp &lt;fp&gt;.bin" in page.read_text()
    assert "2021, paper" not in page.read_text()
