"""The engine and the preparation of images: once each, in order, whatever the batch; what cannot be used is told."""

from __future__ import annotations

import dataclasses
import os

import cv2
import numpy as np
import pytest

from benchmarks.datasets.lfw import read_lfw
from benchmarks.engine.runner import Engine
from benchmarks.errors import ProtocolError
from pipeline.prepare import NoCropError, Request, follow, prepare
from pipeline.spec import Preprocessing
from tests.benchmarks.conftest import Recorder, score


@pytest.fixture
def root(demo):
    return demo("QMUL-SurvFace")


def images(root):
    return sorted((root / "Face_Verification_Test_Set" / "verification_images").iterdir())


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_vectors_come_in_the_order_of_requests_whatever_the_batch(root, batch_size):
    requests = [Request(path=path, down=down) for down in (None, 8) for path in images(root)]
    found = Engine(embed=Recorder(), batch_size=batch_size).embeddings(requests, "test")
    assert found.good.all()
    assert (found.computed, found.cached, found.missing) == (len(requests), 0, {})
    for request, vector in zip(requests, found.vectors, strict=True):
        (seen,) = prepare(request.path.read_bytes(), [request], Preprocessing())
        np.testing.assert_allclose(vector, Recorder()(seen[None])[0], rtol=1e-6)


def test_batches_are_never_larger_than_asked(root):
    sizes = []

    def embed(batch):
        sizes.append(len(batch))
        return Recorder()(batch)

    score("qmul", root, embed, batch_size=5)
    assert set(sizes[:-1]) == {5}
    assert 1 <= sizes[-1] <= 5


def test_images_that_cannot_be_used_are_all_listed(root, capsys):
    damaged = images(root)[:3]
    damaged[0].unlink()
    damaged[1].write_bytes(b"nonsense")
    damaged[2].write_bytes(damaged[2].read_bytes()[:200])
    with pytest.raises(ProtocolError) as error:
        score("qmul", root)
    assert str(error.value) == (
        "bench qmul: 3 images cannot be used, listed above; restore from the data set's archive,"
        " or pass --allow-missing to score without them"
    )
    listed = capsys.readouterr().err
    assert f"{damaged[0]}: not found" in listed
    assert f"{damaged[1]}: cannot be decoded (8 bytes, not an image or damaged)" in listed
    assert f"{damaged[2]}: damaged JPEG (200 bytes)" in listed


def test_a_pipe_in_place_of_an_image_is_not_waited_for(root, capsys):
    lost = images(root)[0]
    lost.unlink()
    os.mkfifo(lost)
    with pytest.raises(ProtocolError, match="bench qmul: 1 image cannot be used"):
        score("qmul", root)
    assert f"{lost}: cannot be read: not a regular file" in capsys.readouterr().err


def test_the_remedy_is_of_what_is_wrong(demo):
    root = demo("LFW")
    table = root / "LFW.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))
    mend = "mend the table of landmarks or name another with --landmarks, or pass --allow-missing to score without them"
    with pytest.raises(ProtocolError) as error:
        score("lfw", root)
    assert str(error.value) == f"bench lfw: 1 image cannot be used, listed above; {mend}"
    read_lfw(root).requests[-1].path.unlink()
    with pytest.raises(ProtocolError) as error:
        score("lfw", root)
    assert str(error.value) == (
        f"bench lfw: 2 images cannot be used, listed above; restore from the data set's archive; {mend}"
    )


def test_progress_counts_preparations(demo, capsys):
    count = score("lfw", demo("LFW")).counts["prepared"]
    assert f"bench lfw: {count}/{count} preparations [" in capsys.readouterr().err


def test_partial_figures_leave_out_the_pairs_and_say_so(root):
    whole = score("qmul", root)
    lost = images(root)[0]
    lost.unlink()
    partial = score("qmul", root, allow_missing=True)
    record = partial.to_dict()
    assert record["partial"] is True
    assert record["missing"] == [{"path": str(lost), "reason": "not found"}]
    assert whole.to_dict()["partial"] is False
    kept = len(partial.settings["{}"].scores)
    assert kept + partial.counts["left_out"] == whole.counts["pairs"]
    assert partial.counts["left_out"] > 0


def test_a_folder_without_images_leaves_nothing_to_score(root):
    for path in images(root):
        path.unlink()
    with pytest.raises(ProtocolError, match="bench qmul: accuracy: too few pairs are left to score"):
        score("qmul", root, allow_missing=True)


def test_embeddings_that_are_not_finite_are_refused(root):
    with pytest.raises(ProtocolError, match="the network's embeddings are not finite"):
        score("qmul", root, lambda batch: np.full((len(batch), 4), np.nan, np.float32))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"degradation": "pillow-nearest"}, "degradation: checkpoint 'pillow-nearest', here 'pillow-bicubic'"),
        (
            {"color": "BGR", "warp": "x"},
            "warp: checkpoint 'x', here 'opencv-cubic'; color: checkpoint 'BGR', here 'RGB'",
        ),
    ],
)
def test_preprocessing_that_cannot_be_followed_is_refused_and_it_says_how(changes, says):
    with pytest.raises(ProtocolError) as error:
        follow({**Preprocessing().to_dict(), **changes}, {"path": "x.pt"})
    assert f"x.pt: preprocessing disagrees ({says})" in str(error.value)


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        (
            {**Preprocessing().to_dict(), "flip": True},
            r"x\.pt: preprocessing spec: fields \['flip'\] are missing or unknown",
        ),
        (
            {**Preprocessing().to_dict(), "template": "mine"},
            r"x\.pt: preprocessing spec: template 'mine' is unknown, expected seed, arcface or none; score it with the version",
        ),
    ],
)
def test_an_unknown_spec_is_refused(stated, says):
    with pytest.raises(ProtocolError, match=says):
        follow(stated, {"path": "x.pt"})


def test_a_network_of_unaligned_images_is_scored_without_alignment_and_refused_where_faces_are_aligned(demo):
    spec = follow(Preprocessing.unaligned(mean=0.4).to_dict(), {})
    assert spec == Preprocessing.unaligned(mean=0.4)
    assert score("qmul", demo("QMUL-SurvFace"), spec=spec).preprocessing["template"] == "none"
    recorder = Recorder()
    with pytest.raises(ProtocolError) as error:
        score("lfw", demo("LFW"), recorder, spec=spec)
    assert str(error.value) == (
        "bench lfw: aligns faces by their landmarks; x.pt learned from unaligned images alone (template none)"
        " and states no template: score it on qmul, qmul-id or tinyface"
    )
    assert recorder.images == []
    with pytest.raises(ProtocolError, match=r"warp: checkpoint|belong together"):
        follow({**spec.to_dict(), "warp": "opencv-cubic"}, {"path": "x.pt"})


def test_size_and_normalisation_of_the_checkpoint_are_followed(root):
    assert follow(None, {}) == Preprocessing()
    spec = follow({**Preprocessing().to_dict(), "size": 112, "mean": 0.4, "template": "arcface"}, {})
    assert (spec.size, spec.mean, spec.template) == (112, 0.4, "arcface")
    (seen,) = prepare(images(root)[0].read_bytes(), [Request(path=images(root)[0], down=8)], spec)
    assert seen.shape == (112, 112, 3)


def bytes_of(image):
    return cv2.imencode(".png", image)[1].tobytes()


FACE = ((40.0, 50.0), (70.0, 50.0), (55.0, 65.0), (43.0, 80.0), (67.0, 80.0))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"points": (), "place": "a.csv, b.csv"}, "no row for face in a.csv, b.csv"),
        ({"points": ((float("nan"),) * 2,) * 5}, "its landmarks are not all finite numbers"),
        (
            {"points": ((5.0, 5.0),) * 5, "place": "a.csv row 3"},
            "its landmarks (a.csv row 3) are in one place or on one line",
        ),
        ({"points": tuple((x, 50.0) for x, _ in FACE), "side": 0}, "its landmarks are in one place or on one line"),
        ({"points": tuple((x + 500, y) for x, y in FACE)}, "its landmarks lie outside the image"),
        ({"points": FACE, "side": 0}, "its landmarks ask for a crop of 0 px, expected 1 to 4096"),
        ({"points": FACE, "side": 10**6}, "its landmarks ask for a crop of 1000000 px, expected 1 to 4096"),
    ],
)
def test_landmarks_that_give_no_crop_are_a_reason(tmp_path, changes, says):
    data = bytes_of(np.zeros((120, 110, 3), np.uint8))
    with pytest.raises(NoCropError) as error:
        prepare(data, [Request(path=tmp_path / "face.png", **changes)], Preprocessing())
    assert str(error.value) == says


def test_points_of_a_larger_image_are_scaled(tmp_path):
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (12, 11, 3), dtype=np.uint8), (110, 120), interpolation=cv2.INTER_CUBIC)
    twice = tuple((2 * x, 2 * y) for x, y in FACE)
    plain = Request(path=tmp_path, points=FACE)
    scaled = dataclasses.replace(plain, points=twice, points_size=(220, 240))
    first, second = prepare(bytes_of(image), [plain, scaled], Preprocessing())
    assert np.array_equal(first, second)
