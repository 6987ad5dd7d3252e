"""QMUL-SurvFace on generated faces: verification and open-set identification, errors of lists."""

from __future__ import annotations

import dataclasses
import os
import shutil

import numpy as np
import pytest
import scipy.io

from benchmarks.datasets.qmul import IDENTIFICATION, VERIFICATION, read_qmul, read_qmul_id
from benchmarks.errors import AbsentError, ProtocolError
from pipeline.images.lookup import is_generated
from pipeline.sources.file_readers import ImageFolder
from tests.benchmarks.oracles import file_names, resized_whole
from tests.benchmarks.runs import Recorder, add_system_files, cosine, score


@pytest.fixture
def root(demo):
    return demo("QMUL-SurvFace")


def mat(root, kind="positive"):
    return root / VERIFICATION / f"{kind}_pairs_names.mat"


def test_each_distinct_image_is_embedded_once_resized_by_pillow(root):
    recorder = Recorder()
    result = score("qmul", root, recorder, batch_size=7)
    paths = [request.path for request in read_qmul(root).requests]
    assert len(recorder.images) == len(paths) == result.counts["embedded"] == len(set(paths))
    for path, seen in zip(paths, recorder.images, strict=True):
        assert np.array_equal(seen, resized_whole(path))


def test_verification_equals_a_naive_evaluation(root):
    result, embed = score("qmul", root, intervals=True), Recorder()
    names = [file_names(mat(root, kind), f"{kind}_pairs_names") for kind in ("positive", "negative")]
    images = root / VERIFICATION / "verification_images"
    genuine, impostors = (
        np.array([cosine(*(embed(resized_whole(images / name)[None])[0] for name in pair)) for pair in pairs])
        for pairs in names
    )
    samples = result.settings["{}"]
    np.testing.assert_allclose(samples.scores, np.concatenate([genuine, impostors]), atol=1e-5)
    better = (genuine[:, None] > impostors).mean() + (genuine[:, None] == impostors).mean() / 2
    assert result.metrics["auc"] == pytest.approx(better, abs=2e-3)
    rates = {f"tar@far={rate:g}" for rate in (0.3, 0.1, 0.01, 0.001)}
    assert set(result.metrics) == set(result.intervals) == {*rates, "auc", "accuracy", "std", "eer"}
    assert result.intervals["auc"][0] < result.metrics["auc"] < result.intervals["auc"][1]
    for kind in (samples.genuine, ~samples.genuine):
        assert (np.diff(samples.folds[kind]) >= 0).all()
        assert set(samples.folds[kind]) == set(range(10))
    same = samples.identities[:, 0] == samples.identities[:, 1]
    assert np.array_equal(same, samples.genuine)


def test_files_that_systems_add_change_nothing(root, capsys):
    expected = score("qmul-id", root)
    add_system_files(root)
    capsys.readouterr()
    found = score("qmul-id", root)
    assert (found.metrics, found.counts["images"]) == (expected.metrics, expected.counts["images"])
    assert "unmated_probe: ignored " in (said := capsys.readouterr().err)
    assert "hidden or system entries (._" in said


def test_identification_equals_a_naive_evaluation(root):
    result, embed = score("qmul-id", root, intervals=True), Recorder()
    folder = root / IDENTIFICATION

    def listed(images, variable):
        path = folder / f"{images}_img_ID_pairs.mat"
        names = [name for (name,) in file_names(path, f"{variable}_set")]
        ids = scipy.io.loadmat(path)[f"{variable}_ids"].ravel().tolist()
        return [
            (embed(resized_whole(folder / images / name)[None])[0], one) for name, one in zip(names, ids, strict=True)
        ]

    gallery = {}
    for vector, identity in listed("gallery", "gallery"):
        gallery.setdefault(identity, []).append(vector)
    templates = {identity: np.mean(vectors, 0) for identity, vectors in gallery.items()}
    hits = []  # score of the true identity if it is within rank 20
    for vector, identity in listed("mated_probe", "mated_probe"):
        ordered = sorted(templates, key=lambda other: -cosine(templates[other], vector))
        hits.append(cosine(templates[identity], vector) if identity in ordered[:20] else -9.0)
    unmated = ImageFolder(folder / "unmated_probe").images
    tops = [max(cosine(t, embed(resized_whole(path)[None])[0]) for t in templates.values()) for path in unmated]
    hits, tops = np.array(hits), np.sort(tops)[::-1]
    points = [((tops >= t).mean(), (hits >= t).mean()) for t in sorted({*tops, *hits[hits > -9]}, reverse=True)]
    fpir, tpir = np.array([(0, 0), *points]).T
    assert result.metrics["auc"] == pytest.approx(np.trapezoid(tpir, fpir), abs=2e-3)
    for rate in (0.3, 0.2, 0.1):
        low, high = tpir[fpir <= rate].max(), tpir[fpir >= rate].min()
        assert low - 1e-6 <= result.metrics[f"tpir20@fpir={rate:g}"] <= high + 1e-6
    assert (
        set(result.metrics) == set(result.intervals) == {*(f"tpir20@fpir={r:g}" for r in (0.3, 0.2, 0.1, 0.01)), "auc"}
    )
    assert result.counts["unmated_probes"] == len(unmated)
    assert result.counts["identities"] == len(templates)


def test_identities_beyond_the_rank_limit_are_missed(root):
    """Tested with a limit of 1, because the generated watch list has fewer than 20 people."""
    protocol = read_qmul_id(root)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(protocol.requests), 3)).astype(np.float32)
    strict = type(protocol)(**{**vars(protocol), "within": 1})
    every = np.ones(len(vectors), bool)
    loose_scores, strict_scores = (one.score(vectors, every)["{}"].samples for one in (protocol, strict))
    assert (strict_scores.scores <= -2).sum() > (loose_scores.scores <= -2).sum()
    kept = strict_scores.scores > -2
    assert np.array_equal(strict_scores.scores[kept], loose_scores.scores[kept])


def test_file_names_may_differ_in_case_and_the_folder_may_be_nested(root, tmp_path):
    expected = {name: score(name, root).metrics for name in ("qmul", "qmul-id")}
    (root / VERIFICATION).rename(root / VERIFICATION.lower())
    images = root / VERIFICATION.lower() / "verification_images"
    images.rename(images.with_name("Verification_Images"))
    for path in images.with_name("Verification_Images").iterdir():
        path.rename(path.with_suffix(".JPG"))
    (root / "Face_Identification_Evaluation").mkdir()
    for path in (root / IDENTIFICATION).glob("*.mat"):
        path.rename(root / "Face_Identification_Evaluation" / path.name)
    (tmp_path / "outer").mkdir()
    root.rename(tmp_path / "outer" / "QMUL-SurvFace")
    assert {name: score(name, tmp_path / "outer").metrics for name in expected} == expected
    inner = tmp_path / "outer" / "QMUL-SurvFace" / IDENTIFICATION
    assert score("qmul-id", inner).metrics == expected["qmul-id"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: mat(root).unlink(), "positive_pairs_names.mat: not found in"),
        (lambda root: mat(root).write_bytes(b"nonsense"), "positive_pairs_names.mat: not a readable MATLAB 5 file"),
        (
            lambda root: mat(root).write_bytes(mat(root).read_bytes()[:300]),
            "positive_pairs_names.mat: not a readable MATLAB 5 file",
        ),
        (
            lambda root: scipy.io.savemat(mat(root), {"pairs": np.zeros((2, 2))}),
            "positive_pairs_names.mat: contains pairs, expected the variable positive_pairs_names",
        ),
        (
            lambda root: scipy.io.savemat(mat(root), {"positive_pairs_names": np.zeros((2, 3))}),
            "positive_pairs_names has shape (2, 3), expected (N, 2) cells of file names",
        ),
        (
            lambda root: scipy.io.savemat(mat(root), {"positive_pairs_names": np.zeros((20, 2))}),
            "a cell contains float64 of size 1, expected one file name",
        ),
        (lambda root: shutil.rmtree(root / VERIFICATION / "verification_images"), "verification_images: not found in"),
    ],
)
def test_invalid_verification_data_give_a_one_line_error(root, damage, message):
    damage(root)
    with pytest.raises(ProtocolError) as error:
        read_qmul(root)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_fewer_pairs_than_folds_are_an_error(root):
    cells = np.empty((9, 2), object)
    cells[:] = "1_cam1_1.jpg"
    scipy.io.savemat(mat(root), {"positive_pairs_names": cells})
    with pytest.raises(ProtocolError, match="9 pairs, expected at least one for each of 10 folds"):
        read_qmul(root)


def listed(root):
    return root / IDENTIFICATION / "mated_probe_img_ID_pairs.mat"


def change(path, **variables):
    content = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    scipy.io.savemat(path, {**content, **variables})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: listed(root).unlink(), "mated_probe_img_ID_pairs.mat: not found in"),
        (
            lambda root: change(listed(root), mated_probe_ids=np.ones((2, 1), np.uint16)),
            "mated_probe_ids has 2 values of uint16, expected",
        ),
        (
            lambda root: change(
                listed(root), mated_probe_ids=9999 + 0 * scipy.io.loadmat(listed(root))["mated_probe_ids"]
            ),
            "the gallery list has no image of identity 9999, a mated probe",
        ),
        (lambda root: shutil.rmtree(root / IDENTIFICATION / "gallery"), "gallery: not found in"),
        (
            lambda root: [path.unlink() for path in (root / IDENTIFICATION / "unmated_probe").iterdir()],
            "unmated_probe: contains no images; expected the unmated probes",
        ),
    ],
)
def test_invalid_identification_data_give_a_one_line_error(root, damage, message):
    damage(root)
    with pytest.raises(ProtocolError) as error:
        read_qmul_id(root)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [read_qmul, read_qmul_id])
def test_an_absent_set_says_what_was_expected(tmp_path, read):
    with pytest.raises(AbsentError, match=r"no Face_\w+_Test_Set in it; expected the \w+ set of QMUL-SurvFace"):
        read(tmp_path)


def test_a_compressed_mat_file_damaged_anywhere_gives_a_one_line_error(root):
    content = scipy.io.loadmat(mat(root))["positive_pairs_names"]
    scipy.io.savemat(mat(root), {"positive_pairs_names": content}, do_compression=True)
    good = mat(root).read_bytes()
    damaged = [good[:cut] for cut in range(130, len(good), 7)]
    damaged += [good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :] for at in range(128, len(good), 7)]
    assert len(damaged) > 50
    refused = 0
    for data in damaged:
        mat(root).write_bytes(data)
        try:
            read_qmul(root)
        except ProtocolError:
            refused += 1
    assert refused > 0.9 * len(damaged)


@pytest.mark.parametrize("value", [np.nan, np.inf, 2.5, -1, 1e300])
def test_an_identity_that_is_not_an_integer_is_named(root, value):
    ids = scipy.io.loadmat(listed(root))["mated_probe_ids"].astype(float)
    ids[1] = value
    change(listed(root), mated_probe_ids=ids)
    with pytest.raises(ProtocolError) as error:
        read_qmul_id(root)
    assert str(error.value) == (
        f"{listed(root)}: mated_probe_ids, row 2: {float(value)}, expected an integer from 0 to 2147483647;"
        " restore the file from the archive"
    )


def test_identities_may_be_stored_as_floats(root):
    expected = read_qmul_id(root).search.probe_ids
    change(listed(root), mated_probe_ids=scipy.io.loadmat(listed(root))["mated_probe_ids"].astype(float))
    assert np.array_equal(read_qmul_id(root).search.probe_ids, expected)


def test_the_error_of_a_matlab_7_3_file_says_how_to_save_it(root):
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    mat(root).write_bytes(head.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(1000))
    with pytest.raises(ProtocolError) as error:
        read_qmul(root)
    assert str(error.value) == f"{mat(root)}: a MATLAB 7.3 file, expected MATLAB 5 to 7; save it again with: save -v7"


def test_a_name_with_nul_and_a_pipe_for_a_list_give_a_one_line_error(root):
    cells = np.full((20, 2), "1_cam1_1.jpg", object)
    cells[3, 1] = "1_camQ1.jpg"
    scipy.io.savemat(mat(root), {"positive_pairs_names": cells})
    mat(root).write_bytes(mat(root).read_bytes().replace(b"1_camQ", b"1_cam\0"))
    with pytest.raises(ProtocolError, match=r"a cell contains '1_cam\\x001\.jpg', expected a file name"):
        read_qmul(root)
    mat(root).unlink()
    os.mkfifo(mat(root))
    with pytest.raises(ProtocolError, match=r"not a readable MATLAB 5 file .*not a regular file"):
        read_qmul(root)


@pytest.mark.parametrize("below", ["", "QMUL-SurvFace", None])
@pytest.mark.parametrize(("read", "set_name"), [(read_qmul, VERIFICATION), (read_qmul_id, IDENTIFICATION)])
def test_generated_faces_are_detected_from_every_root(root, read, set_name, below):
    assert is_generated(read(root.parent / (f"QMUL-SurvFace/{set_name}" if below is None else below)).root)


def test_large_embeddings_score_like_small_ones(root):
    """Squares of large values overflow float32: every vector would become zero."""
    for name in ("qmul", "qmul-id"):
        plain = score(name, root, Recorder())
        large = score(name, root, lambda batch: Recorder()(batch) * np.float32(1e34))
        assert large.metrics == pytest.approx(plain.metrics, abs=1e-3)


def test_a_collapsed_network_finds_none_of_the_listed_people(root):
    """A matrix product rounds identical vectors differently, which must not break ties."""
    protocol = read_qmul_id(root)
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(1, 64)), len(protocol.requests), 0).astype(np.float32)
    shaken = vectors * (1 + 3e-7 * rng.normal(size=vectors.shape)).astype(np.float32)
    samples = protocol.score(shaken, np.ones(len(vectors), bool))["{}"].samples
    assert set(samples.scores[~samples.genuine].tolist()) == {1.0}
    assert set(samples.scores[samples.genuine].tolist()) <= {1.0, -2.0}
    one = dataclasses.replace(protocol, within=1).score(shaken, np.ones(len(vectors), bool))["{}"].samples
    assert (one.scores[one.genuine] == -2).all()
