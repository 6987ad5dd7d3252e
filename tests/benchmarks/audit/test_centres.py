"""Products in blocks equal the plain ones."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from benchmarks.audit import centres, photographs
from benchmarks.audit.centres import Space, compare_with_others, identity_sums, largest, own_similarities, place
from benchmarks.audit.photographs import neighbours, neighbours_between
from benchmarks.audit.stored import scratch
from benchmarks.scoring.vectors import unit_length
from pipeline.progress import Progress


@pytest.fixture(params=[1 << 24, 40], ids=["one block", "many blocks"])
def made(request, monkeypatch):
    """Vectors of 7 identities with 1 to 7 images, sorted; small blocks."""
    monkeypatch.setattr(centres, "BLOCK_VALUES", request.param)
    monkeypatch.setattr(photographs, "BLOCK_VALUES", request.param)
    rng = np.random.default_rng(0)
    count = np.arange(1, 8)
    identity = np.repeat(np.arange(7), count)
    vectors = unit_length((rng.normal(size=(7, 16))[identity] + rng.normal(size=(28, 16))).astype(np.float32))
    return vectors, np.cumsum(count) - count, identity, rng.random(28).astype(np.float32)


def compare(vectors, sums, identity):
    with Progress("test", len(vectors)) as progress:
        return compare_with_others(vectors, sums, identity, progress)


def test_similarity_with_the_other_images_of_an_identity(made):
    vectors, first, identity, weights = made
    sums = identity_sums(vectors, first, weights)
    found = own_similarities(vectors, sums, identity, weights)
    assert np.isnan(found[0])  # alone
    for row in range(1, 28):
        others = (identity == identity[row]) & (np.arange(28) != row)
        centre = (vectors[others] * weights[others, None]).sum(0)
        assert found[row] == pytest.approx(vectors[row] @ centre / np.linalg.norm(centre), abs=1e-4)


def test_similarity_with_other_identities(made):
    vectors, first, identity, _ = made
    sums = identity_sums(vectors, first, np.ones(28, np.float32))
    found = compare(vectors, sums, identity)
    cosines = vectors @ unit_length(sums).T
    for row in range(28):
        others = np.delete(np.arange(7), identity[row])
        assert found.mean[row] == pytest.approx(cosines[row, others].mean(), abs=1e-5)
        assert found.spread[row] == pytest.approx(cosines[row, others].std(), abs=1e-5)
        ranked = others[np.argsort(-cosines[row, others])]
        assert found.nearest[row] == ranked[0]
        assert found.cells[row].tolist() == [identity[row], *ranked[:3]]


def test_the_largest_of_equal_values_is_the_first():
    values = np.array([[0.5, 0.9, 0.1, 0.9], [-2.0, -0.3, -0.3, -0.4]], np.float32)
    assert largest(values.copy(), 3).tolist() == [[1, 3, 0], [1, 2, 3]]
    assert largest(values.copy(), 4).tolist() == [[1, 3, 0, 2], [1, 2, 3, 0]]


def test_images_of_no_identity_are_compared_with_all(made):
    vectors, first, _, _ = made
    sums = identity_sums(vectors, first, np.ones(28, np.float32))
    found = compare(vectors, sums, np.full(28, -1))
    cosines = vectors @ unit_length(sums).T
    assert (found.nearest == cosines.argmax(1)).all()
    assert (found.cells[:, 0] == -1).all()


def test_of_many_identities_a_random_choice_is_compared(made, monkeypatch):
    vectors, first, identity, _ = made
    monkeypatch.setattr(centres, "MAX_CENTRES", 4)
    found = compare(vectors, identity_sums(vectors, first, np.ones(28, np.float32)), identity)
    assert len(set(found.nearest.tolist())) <= 4
    assert (found.cells[:, 0] == identity).all()
    assert (found.nearest != identity).all()


def test_neighbours_are_pairs_of_images_that_share_a_cell(made):
    vectors, first, identity, _ = made
    sums = identity_sums(vectors, first, np.ones(28, np.float32))
    space = Space(vectors=vectors, centres=sums, cells=compare(vectors, sums, identity).cells)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    expected = set()
    for cell in range(7):
        members = np.flatnonzero((space.cells == cell).any(1))
        for row in members:
            near = members[np.argsort(-cosines[row, members])][: min(2, len(members) - 1)]
            expected |= {tuple(sorted((int(row), int(other)))) for other in near}
    assert set(map(tuple, neighbours(space, "test").tolist())) == expected


def test_probes_find_their_nearest_images(made):
    vectors, first, identity, _ = made
    sums = identity_sums(vectors, first, np.ones(28, np.float32))
    space = Space(vectors=vectors, centres=sums, cells=compare(vectors, sums, identity).cells)
    probes = vectors[[3, 20]]
    found = set(map(tuple, neighbours_between(probes, space, "test").tolist()))
    assert {(0, 3), (1, 20)} <= found
    assert place(probes, sums, "test").shape == (2, 4)


def test_a_full_disk_names_the_folder_of_a_scratch_array(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as error:
        scratch(tmp_path, (5, 3), np.float16)
    assert error.value.filename == str(tmp_path)


def test_a_scratch_array_leaves_no_file(tmp_path):
    array = scratch(tmp_path, (5, 3), np.float16)
    array[:] = 7
    assert (array == 7).all()
    assert list(tmp_path.iterdir()) == []
