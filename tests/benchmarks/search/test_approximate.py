"""A gallery compressed by FAISS: scores as of the exact search, a measured recall."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import benchmarks.search.approximate
import benchmarks.search.queries
from benchmarks.errors import SearchError
from benchmarks.search.approximate import CompressedGallery
from benchmarks.search.run import search_tables
from benchmarks.search.table import EmbeddingTable
from tests.benchmarks.search.vectors import people_vectors
from tests.processes import REPOSITORY


@pytest.fixture
def faces(write, monkeypatch):
    """A gallery of 2,000 faces and 60 probes, some of them of the gallery."""
    monkeypatch.setattr(benchmarks.search.approximate, "MIN_ROWS", 100)
    monkeypatch.setattr(benchmarks.search.approximate, "CANDIDATES", 8)
    monkeypatch.setattr(benchmarks.search.approximate, "CANDIDATES_PER_MATCH", 1)
    monkeypatch.setattr(benchmarks.search.approximate, "CHUNK_PAIRS", 100)
    vectors, who = people_vectors(400, 5, 32, 0.6)
    probes = vectors[::40] + 0.2 * np.roll(vectors, 1, 0)[::40]
    probes /= np.linalg.norm(probes, axis=1)[:, None]
    probes = np.concatenate([probes, vectors[:10]])
    names = [*(f"p/{row}" for row in range(len(probes) - 10)), *(f"g/{row}.jpg" for row in range(10))]
    return write("g.parquet", vectors, identities=who, bad={7, 1999}), write("p.parquet", probes, paths=names)


def test_finds_most_of_the_exact_matches_with_their_scores(faces, tmp_path):
    exact = search_tables(*faces, tmp_path / "a.parquet", top=5)
    fast = search_tables(*faces, tmp_path / "b.parquet", top=5, approximate=True)
    assert (fast.gallery, fast.gallery_unusable, fast.probes, fast.same_path) == (1998, 2, 60, 9 + 1)
    assert (exact.gallery, exact.recall) == (1998, None)
    tables = [pq.read_table(tmp_path / name).to_pylist() for name in ("a.parquet", "b.parquet")]
    scores = [{(row["probe"], row["gallery"]): row["score"] for row in rows if row["rank"]} for rows in tables]
    shared = scores[0].keys() & scores[1].keys()
    assert fast.recall == len(shared) / len(scores[0])
    assert 0.7 < fast.recall < 1
    assert all(scores[0][pair] == scores[1][pair] for pair in shared)
    assert all(row["gallery"] != row["probe"] for row in tables[1])
    for first, second in zip(tables[1], tables[1][1:], strict=False):
        assert first["probe"] != second["probe"] or first["score"] >= second["score"]
    assert pq.read_schema(tmp_path / "b.parquet").metadata[b"index"] == b"pq"


def test_many_candidates_give_the_exact_ranking(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks.search.approximate, "CANDIDATES", 1500)
    monkeypatch.setattr(benchmarks.search.queries, "PASS_CANDIDATES", 1500 * 30)
    search_tables(*faces, tmp_path / "a.parquet", top=5)
    assert search_tables(*faces, tmp_path / "b.parquet", top=5, approximate=True).recall == 1
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))


def test_a_small_gallery_needs_no_index(write):
    with EmbeddingTable(write("g.parquet", people_vectors(4, 5, 8, 0.5)[0])) as gallery:
        with pytest.raises(SearchError) as error:
            CompressedGallery(gallery, lambda rows: None)
        assert str(error.value) == f"{gallery.path}: 20 embeddings; --index pq is for 10,000 or more: leave it out"


def test_a_gallery_of_unusable_rows_is_small_too(write, monkeypatch):
    monkeypatch.setattr(benchmarks.search.approximate, "MIN_ROWS", 100)
    path = write("g.parquet", people_vectors(40, 5, 8, 0.5)[0], bad=set(range(150)))
    with EmbeddingTable(path) as gallery, pytest.raises(SearchError, match=r"g\.parquet: 50 embeddings; --index pq is"):
        CompressedGallery(gallery, lambda rows: None)


def test_without_faiss_one_line_says_what_to_install(faces, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SearchError) as error:
        search_tables(*faces, tmp_path / "m.parquet", approximate=True)
    assert str(error.value) == (
        f"--index pq: faiss is not installed; run: pip install --editable '{REPOSITORY}[search]', or leave --index out"
    )
