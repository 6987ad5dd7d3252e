"""TinyFace on generated faces: ranks and mAP against a naive evaluation, lists, errors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io

from benchmarks.datasets.tinyface import read_tinyface
from benchmarks.errors import AbsentError, ProtocolError
from pipeline.images.lookup import is_generated
from tests.benchmarks.oracles import file_names, naive_ranking, resized_whole
from tests.benchmarks.runs import Recorder, add_system_files, cosine, score


@pytest.fixture
def root(demo):
    return demo("TinyFace")


def listed(root, folder, name, variable):
    path = root / "Testing_Set" / name
    names = [name for (name,) in file_names(path, f"{variable}_set")]
    return [root / "Testing_Set" / folder / name for name in names], scipy.io.loadmat(path)[f"{variable}_ids"].ravel()


def test_metrics_equal_a_naive_evaluation(root):
    result, embed = score("tinyface", root, intervals=True), Recorder()
    probes, probe_ids = listed(root, "Probe", "probe_img_ID_pairs.mat", "probe")
    matches, match_ids = listed(root, "Gallery_Match", "gallery_match_img_ID_pairs.mat", "gallery")
    distractors = sorted((root / "Testing_Set" / "Gallery_Distractor").iterdir())
    assert len(distractors) > 3
    gallery = [embed(resized_whole(path)[None])[0] for path in [*matches, *distractors]]
    gallery = np.array([vector / np.linalg.norm(vector) for vector in gallery])
    ids = np.append(match_ids.astype(int), [-1] * len(distractors))
    found = []
    for path, identity in zip(probes, probe_ids, strict=True):
        vector = embed(resized_whole(path)[None])[0]
        found.append(naive_ranking(vector / np.linalg.norm(vector), identity, gallery, ids))
    ranks, precisions = np.array(found).T
    for k in (1, 5, 10, 20):
        assert result.metrics[f"rank{k}"] == pytest.approx((ranks <= k).mean())
    assert result.metrics["map"] == pytest.approx(precisions.mean(), abs=1e-4)
    assert set(result.metrics) == set(result.intervals) == {"rank1", "rank5", "rank10", "rank20", "map"}
    assert result.counts["gallery"] == len(gallery)


def test_files_that_systems_add_change_nothing(root, capsys):
    expected = score("tinyface", root)
    add_system_files(root)
    capsys.readouterr()
    found = score("tinyface", root)
    assert (found.metrics, found.counts["images"]) == (expected.metrics, expected.counts["images"])
    assert "Gallery_Distractor: ignored " in (said := capsys.readouterr().err)
    assert "hidden or system entries (._" in said


def test_images_outside_the_lists_are_ignored(root):
    expected = score("tinyface", root).metrics
    folder = root / "Testing_Set" / "Probe"
    first = sorted(folder.iterdir())[0]
    (folder / "0_aaa.jpg").write_bytes(first.read_bytes())
    assert score("tinyface", root).metrics == expected


def test_lists_beside_the_evaluation_code_are_found(root):
    expected = score("tinyface", root).metrics
    (root / "Evaluation").mkdir()
    for path in (root / "Testing_Set").glob("*.mat"):
        path.rename(root / "Evaluation" / path.name)
    assert score("tinyface", root).metrics == expected
    assert score("tinyface", root.parent).metrics == expected
    assert score("tinyface", root / "Testing_Set").metrics == expected


def test_absent_parts_are_errors(root, tmp_path):
    with pytest.raises(AbsentError, match="no Testing_Set in it; expected TinyFace's test set"):
        read_tinyface(tmp_path / "nothing")
    (root / "Testing_Set" / "probe_img_ID_pairs.mat").unlink()
    with pytest.raises(
        ProtocolError, match=r"probe_img_ID_pairs\.mat: not found in .*expected the list of Probe images"
    ):
        read_tinyface(root)


def test_hardest_pairs(root):
    protocol = read_tinyface(root)
    embed = Recorder()
    vectors = np.array([embed(resized_whole(request.path)[None])[0] for request in protocol.requests])
    scored = protocol.score(vectors, np.ones(len(vectors), bool))["{}"]
    search = protocol.searches["{}"]
    identity = dict(zip([*search.probes, *search.gallery], [*search.probe_ids, *search.gallery_ids], strict=True))
    genuine, impostors = scored.hardest["genuine"], scored.hardest["impostors"]
    assert len(genuine) == len(impostors) == 8
    row = {request: row for row, request in enumerate(protocol.requests)}
    for pair in genuine + impostors:
        assert pair.score == pytest.approx(cosine(vectors[row[pair.first]], vectors[row[pair.second]]), abs=1e-5)
    assert all(identity[row[pair.first]] == identity[row[pair.second]] for pair in genuine)
    assert all(identity[row[pair.first]] != identity[row[pair.second]] for pair in impostors)
    assert [pair.score for pair in genuine] == sorted(pair.score for pair in genuine)
    assert [pair.score for pair in impostors] == sorted((pair.score for pair in impostors), reverse=True)


@pytest.mark.parametrize("below", ["", "TinyFace", "TinyFace/Testing_Set"])
def test_generated_faces_are_detected_from_every_root(root, below):
    assert is_generated(read_tinyface(root.parent / below).root)


def test_the_error_of_a_missing_list_names_no_sibling_folder(root):
    (root / "Testing_Set" / "probe_img_ID_pairs.mat").unlink()
    (root / "Pictures").mkdir()
    with pytest.raises(ProtocolError) as error:
        read_tinyface(root)
    assert str(error.value).startswith(f"probe_img_ID_pairs.mat: not found in {root}/Testing_Set, {root}; expected")


def _noise(rng, count):
    return (2e-7 * rng.uniform(-1, 1, (count, 512))).astype(np.float32)


def test_a_collapsed_network_recognises_no_one(root):
    """Embeddings that differ by the rounding of float32 only."""
    rng = np.random.default_rng(0)
    constant = rng.normal(size=512)
    result = score("tinyface", root, lambda batch: constant.astype(np.float32) * (1 + _noise(rng, len(batch))))
    assert result.counts["gallery"] >= 20
    assert [result.metrics[f"rank{k}"] for k in (1, 5)] == [0, 0]
