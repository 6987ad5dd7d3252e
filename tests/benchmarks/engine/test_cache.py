"""The embedding cache: persistence, sharing, damage, full disks."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest

from benchmarks.engine.cache import EmbeddingCache
from tests.benchmarks.runs import Recorder, score


def fill(folder, count=5, dimensions=8):
    rng = np.random.default_rng(0)
    items = {rng.bytes(16): rng.normal(size=dimensions).astype(np.float32) for _ in range(count)}
    with EmbeddingCache(folder) as cache:
        for key, vector in items.items():
            cache.put(key, vector)
            assert np.array_equal(cache.get(key), vector)
    return items


def test_stored_embeddings_are_found_by_the_next_process(tmp_path):
    items = fill(tmp_path)
    with EmbeddingCache(tmp_path) as cache:
        for key, vector in items.items():
            assert np.array_equal(cache.get(key), vector)
        assert cache.get(b"0" * 16) is None


def test_two_writers_share_a_folder(tmp_path):
    with EmbeddingCache(tmp_path) as first, EmbeddingCache(tmp_path) as second:
        first.put(b"a" * 16, np.ones(3, np.float32))
        second.put(b"b" * 16, np.zeros(3, np.float32))
    with EmbeddingCache(tmp_path) as cache:
        assert cache.get(b"a" * 16).tolist() == [1, 1, 1]
        assert cache.get(b"b" * 16).tolist() == [0, 0, 0]


def test_full_files_are_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.engine.cache.FILE_EMBEDDINGS", 3)
    cache = EmbeddingCache(tmp_path).__enter__()
    for number in range(7):
        cache.put(bytes([number]) * 16, np.full(2, number, np.float32))
    # killed here: no __exit__
    with EmbeddingCache(tmp_path) as other:
        found = [other.get(bytes([number]) * 16) for number in range(7)]
    assert [None if vector is None else vector[0] for vector in found] == [0, 1, 2, 3, 4, 5, None]
    assert [cache.get(bytes([number]) * 16)[0] for number in range(7)] == list(range(7))


@pytest.mark.parametrize("at", range(0, 284, 3))
def test_a_flipped_byte_never_gives_a_wrong_embedding(tmp_path, at):
    items = fill(tmp_path)
    (path,) = tmp_path.glob("*.emb")
    data = bytearray(path.read_bytes())
    assert len(data) == 284
    data[at] ^= 0x20
    path.write_bytes(data)
    with EmbeddingCache(tmp_path) as cache:
        for key, vector in items.items():
            found = cache.get(key)
            assert found is None or np.array_equal(found, vector)


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:100], lambda data: data[:-1], lambda _: b"nonsense"]
)
def test_a_damaged_file_is_deleted(tmp_path, damage):
    items = fill(tmp_path)
    (path,) = tmp_path.glob("*.emb")
    path.write_bytes(damage(path.read_bytes()))
    with EmbeddingCache(tmp_path) as cache:
        assert all(cache.get(key) is None for key in items)
    assert not path.exists()


def test_scoring_again_needs_no_forward_pass_and_gives_the_same_result(demo, tmp_path):
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


def test_changed_images_and_damaged_entries_are_embedded_again(demo, tmp_path):
    root, embed = demo("QMUL-SurvFace"), Recorder()
    with EmbeddingCache(tmp_path / "cache") as cache:
        before = score("qmul", root, embed, cache=cache)
    images = sorted((root / "Face_Verification_Test_Set" / "verification_images").iterdir())
    images[0].write_bytes(images[1].read_bytes())  # the bytes of another image: cached
    images[2].write_bytes(images[2].read_bytes() + b"\0")  # new bytes: embedded
    (path,) = (tmp_path / "cache").glob("*.emb")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # in the last vector: embedded
    path.write_bytes(data)
    with EmbeddingCache(tmp_path / "cache") as cache:
        after = score("qmul", root, embed, cache=cache)
    assert (after.counts["embedded"], after.counts["cached"]) == (2, before.counts["embedded"] - 2)
    with EmbeddingCache(tmp_path / "cache") as cache:
        assert score("qmul", root, embed, cache=cache).counts["embedded"] == 0


def test_a_killed_run_loses_at_most_the_flush_interval(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.engine.cache.FLUSH_S", 0)
    cache = EmbeddingCache(tmp_path).__enter__()
    for number in range(3):
        cache.put(bytes([number]) * 16, np.full(2, number, np.float32))
    # killed here: no __exit__
    with EmbeddingCache(tmp_path) as other:
        assert [other.get(bytes([number]) * 16)[0] for number in range(3)] == [0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 1  # one growing file, not one a write


def test_folders_and_pipes_with_the_suffix_are_ignored(tmp_path):
    items = fill(tmp_path)
    (tmp_path / "folder.emb").mkdir()
    os.mkfifo(tmp_path / "pipe.emb")
    with EmbeddingCache(tmp_path) as cache:
        assert all(cache.get(key) is not None for key in items)


def test_a_file_that_cannot_be_opened_is_kept(tmp_path, monkeypatch):
    items = fill(tmp_path)
    (path,) = tmp_path.glob("*.emb")

    def too_many(*arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.engine.cache.np.memmap", too_many)
        with EmbeddingCache(tmp_path) as cache:
            assert all(cache.get(key) is None for key in items)
    assert path.exists()


def test_get_is_safe_while_a_new_file_starts(tmp_path):
    """The main thread replaces the pending embeddings between a membership test and the access."""
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


def test_a_file_in_place_of_the_folder_gives_one_warning_and_scoring_goes_on(demo, tmp_path, capsys):
    root, folder = demo("QMUL-SurvFace"), tmp_path / "cache"
    expected = score("qmul", root).metrics
    folder.touch()
    with EmbeddingCache(folder) as cache:
        assert score("qmul", root, cache=cache).metrics == expected
    assert warnings_of(capsys) == [warned(folder, "File exists")]
    with EmbeddingCache(folder / "network") as cache:
        assert score("qmul", root, cache=cache).metrics == expected
    assert warnings_of(capsys) == [warned(folder / "network", "Not a directory")]


@pytest.mark.parametrize("full", [5, 4096])  # written midway, or only at the end
def test_a_failed_write_gives_one_warning_and_scoring_goes_on(demo, tmp_path, capsys, monkeypatch, full):
    root, folder = demo("QMUL-SurvFace"), tmp_path / "cache"
    expected = score("qmul", root).metrics
    monkeypatch.setattr("benchmarks.engine.cache.FILE_EMBEDDINGS", full)
    with EmbeddingCache(folder) as cache:
        shutil.rmtree(folder)
        assert score("qmul", root, cache=cache).metrics == expected
    assert warnings_of(capsys) == [warned(folder, "No such file or directory")]
