"""Embeddings on disk: found again, shared, and made anew where damaged."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest

from benchmarks.engine.cache import EmbeddingCache
from tests.benchmarks.conftest import Recorder, score


def fill(folder, count=5, dimensions=8):
    rng = np.random.default_rng(0)
    items = {rng.bytes(16): rng.normal(size=dimensions).astype(np.float32) for _ in range(count)}
    with EmbeddingCache(folder) as cache:
        for key, vector in items.items():
            cache.put(key, vector)
            assert np.array_equal(cache.get(key), vector)
    return items


def test_what_was_put_is_found_by_the_next(tmp_path):
    items = fill(tmp_path)
    with EmbeddingCache(tmp_path) as cache:
        for key, vector in items.items():
            assert np.array_equal(cache.get(key), vector)
        assert cache.get(b"0" * 16) is None


def test_two_at_a_time_do_not_disturb_each_other(tmp_path):
    with EmbeddingCache(tmp_path) as first, EmbeddingCache(tmp_path) as second:
        first.put(b"a" * 16, np.ones(3, np.float32))
        second.put(b"b" * 16, np.zeros(3, np.float32))
    with EmbeddingCache(tmp_path) as cache:
        assert cache.get(b"a" * 16).tolist() == [1, 1, 1]
        assert cache.get(b"b" * 16).tolist() == [0, 0, 0]


def test_much_is_written_while_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.engine.cache.FILE_EMBEDDINGS", 3)
    cache = EmbeddingCache(tmp_path).__enter__()
    for number in range(7):
        cache.put(bytes([number]) * 16, np.full(2, number, np.float32))
    # killed here: no __exit__
    with EmbeddingCache(tmp_path) as other:
        found = [other.get(bytes([number]) * 16) for number in range(7)]
    assert [None if vector is None else vector[0] for vector in found] == [0, 1, 2, 3, 4, 5, None]
    assert [cache.get(bytes([number]) * 16)[0] for number in range(7)] == list(range(7))


@pytest.mark.parametrize("at", range(0, 296, 3))
def test_a_flipped_byte_is_never_an_embedding(tmp_path, at):
    items = fill(tmp_path)
    (path,) = tmp_path.glob("*.emb")
    data = bytearray(path.read_bytes())
    assert len(data) == 296
    data[at] ^= 0x20
    path.write_bytes(data)
    with EmbeddingCache(tmp_path) as cache:
        for key, vector in items.items():
            found = cache.get(key)
            assert found is None or np.array_equal(found, vector)


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:100], lambda data: data[:-1], lambda _: b"nonsense"]
)
def test_a_file_that_cannot_be_read_is_removed(tmp_path, damage):
    items = fill(tmp_path)
    (path,) = tmp_path.glob("*.emb")
    path.write_bytes(damage(path.read_bytes()))
    with EmbeddingCache(tmp_path) as cache:
        assert all(cache.get(key) is None for key in items)
    assert not path.exists()


def test_a_second_score_costs_no_forward_pass_and_is_the_same(demo, tmp_path):
    root, embed = demo("LFW"), Recorder()
    with EmbeddingCache(tmp_path / "cache") as cache:
        first = score("lfw", root, embed, cache=cache)
    count = len(embed.images)
    assert count == first.counts["embedded"] > 0
    with EmbeddingCache(tmp_path / "cache") as cache:
        second = score("lfw", root, embed, cache=cache)
    assert len(embed.images) == count
    assert (second.counts["embedded"], second.counts["cached"]) == (0, count)
    assert second.metrics == first.metrics
    assert np.array_equal(second.settings["{}@8"].scores, first.settings["{}@8"].scores)


def test_a_changed_image_and_a_damaged_entry_are_embedded_anew(demo, tmp_path):
    root, embed = demo("QMUL-SurvFace"), Recorder()
    with EmbeddingCache(tmp_path / "cache") as cache:
        before = score("qmul", root, embed, cache=cache)
    images = sorted((root / "Face_Verification_Test_Set" / "verification_images").iterdir())
    images[0].write_bytes(images[1].read_bytes())  # known bytes under another name: found
    images[2].write_bytes(images[2].read_bytes() + b"\0")  # other bytes: embedded
    (path,) = (tmp_path / "cache").glob("*.emb")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # the vector of the last image: embedded
    path.write_bytes(data)
    with EmbeddingCache(tmp_path / "cache") as cache:
        after = score("qmul", root, embed, cache=cache)
    assert (after.counts["embedded"], after.counts["cached"]) == (2, before.counts["embedded"] - 2)
    with EmbeddingCache(tmp_path / "cache") as cache:
        assert score("qmul", root, embed, cache=cache).counts["embedded"] == 0


def test_a_run_that_is_killed_loses_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.engine.cache.FLUSH_S", 0)
    cache = EmbeddingCache(tmp_path).__enter__()
    for number in range(3):
        cache.put(bytes([number]) * 16, np.full(2, number, np.float32))
    # killed here: no __exit__
    with EmbeddingCache(tmp_path) as other:
        assert [other.get(bytes([number]) * 16)[0] for number in range(3)] == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 1  # one file that grows, not one a write


def test_what_only_looks_like_a_file_of_embeddings_is_passed_over(tmp_path):
    items = fill(tmp_path)
    (tmp_path / "folder.emb").mkdir()
    os.mkfifo(tmp_path / "pipe.emb")
    with EmbeddingCache(tmp_path) as cache:
        assert all(cache.get(key) is not None for key in items)


def test_a_file_that_cannot_be_opened_now_is_kept(tmp_path, monkeypatch):
    items = fill(tmp_path)
    (path,) = tmp_path.glob("*.emb")

    def too_many(*arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.engine.cache.np.memmap", too_many)
        with EmbeddingCache(tmp_path) as cache:
            assert all(cache.get(key) is None for key in items)
    assert path.exists()


def test_an_embedding_may_be_asked_for_while_its_file_is_written(tmp_path):
    """A thread's get between its look and its reading, as the main thread starts a new file."""
    cache = EmbeddingCache(tmp_path).__enter__()

    class Swapped(dict):
        def __contains__(self, key):
            cache._pending = {}
            return super().__contains__(key)

    cache._pending = Swapped({b"a" * 16: np.ones(2, np.float32)})
    assert cache.get(b"a" * 16).tolist() == [1, 1]


def warned(folder, reason):
    return f"warning: {folder}: {reason}; embeddings are no longer cached: make the folder writable, or pass --no-cache"


def warnings_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if "warning" in line]


def test_a_file_in_place_of_the_folder_is_one_warning_and_scoring_goes_on(demo, tmp_path, capsys):
    root, folder = demo("QMUL-SurvFace"), tmp_path / "cache"
    expected = score("qmul", root).metrics
    folder.touch()
    with EmbeddingCache(folder) as cache:
        assert score("qmul", root, cache=cache).metrics == expected
    assert warnings_of(capsys) == [warned(folder, "File exists")]
    with EmbeddingCache(folder / "network") as cache:
        assert score("qmul", root, cache=cache).metrics == expected
    assert warnings_of(capsys) == [warned(folder / "network", "Not a directory")]


@pytest.mark.parametrize("full", [5, 4096])  # written midway, and at the end alone
def test_a_full_disk_is_one_warning_and_scoring_goes_on(demo, tmp_path, capsys, monkeypatch, full):
    root, folder = demo("QMUL-SurvFace"), tmp_path / "cache"
    expected = score("qmul", root).metrics
    monkeypatch.setattr("benchmarks.engine.cache.FILE_EMBEDDINGS", full)
    with EmbeddingCache(folder) as cache:
        shutil.rmtree(folder)
        assert score("qmul", root, cache=cache).metrics == expected
    assert warnings_of(capsys) == [warned(folder, "No such file or directory")]
