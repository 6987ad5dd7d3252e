"""The stored embeddings of a shard set: values, what is computed again, kills, damage and locks."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from benchmarks.engine import shard_set as module
from benchmarks.engine.runner import Engine
from benchmarks.engine.shard_set import SetEmbeddings, set_requests
from benchmarks.errors import ProtocolError
from pipeline.images.decode import decode_bytes
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import Preprocessing
from shards.errors import ShardError
from shards.index import ShardIndex, ShardReader
from shards.locks import locked
from tests.processes import PATIENCE_S


class Network:
    """Six means of an image's parts; counts the images."""

    def __init__(self, size=6, scale=1.0, fails_after=None):
        self.images, self.size, self.scale, self.fails_after = 0, size, scale, fails_after

    def __call__(self, images):
        self.images += len(images)
        if self.fails_after is not None and self.images > self.fails_after:
            raise KeyboardInterrupt
        parts = np.array_split(images.astype(np.float32).reshape(len(images), -1), self.size, axis=1)
        return self.scale * np.stack([part.mean(1) for part in parts], axis=1)


@pytest.fixture
def index(shard_set):
    return ShardIndex(shard_set)


def store(index, tmp_path, network="a"):
    return SetEmbeddings(tmp_path / "cache" / "embeddings.rows", index, network)


def complete(index, tmp_path, network="a", embed=None, **options):
    embed = embed or Network()
    stored = store(index, tmp_path, network)
    stored.complete(Engine(embed=embed, batch_size=7), **options)
    return stored, embed.images


def test_every_image_of_the_set_is_embedded_once(index, tmp_path):
    stored, images = complete(index, tmp_path)
    assert (images, stored.length, len(stored)) == (45, 6, 45)
    with ShardReader(index) as reader:
        pixels = np.stack([decode_bytes(reader.image(row))[..., ::-1] for row in range(45)])
    expected = Network()(pixels)
    np.testing.assert_allclose(
        stored(np.arange(45)), expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5
    )
    rows = np.array([44, 3, 3])
    np.testing.assert_array_equal(stored(rows), stored(np.arange(45))[rows])
    again, images = complete(index, tmp_path)
    assert images == 0
    np.testing.assert_array_equal(again(rows), stored(rows))


def test_what_was_stored_before_a_kill_is_kept(index, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP_ROWS", 10)
    with pytest.raises(KeyboardInterrupt):
        complete(index, tmp_path, embed=Network(fails_after=25))
    stored, images = complete(index, tmp_path)
    assert images == 25
    np.testing.assert_array_equal(stored(np.arange(45)), complete(index, tmp_path / "b")[0](np.arange(45)))


@pytest.mark.parametrize(("damage", "images"), [("row", 1), ("cut", 45), ("none", 45), ("network", 45)])
def test_only_what_is_damaged_is_computed_again(index, tmp_path, capsys, damage, images):
    stored, _ = complete(index, tmp_path)
    before, content = stored(np.arange(45)), bytearray(stored.path.read_bytes())
    if damage == "row":
        content[4 + 7 * 48 + 30] ^= 1
    stored.path.write_bytes(content[:-5] if damage == "cut" else b"" if damage == "none" else content)
    again, computed = complete(index, tmp_path, network="b" if damage == "network" else "a")
    assert computed == images
    np.testing.assert_array_equal(again(np.arange(45)), before)
    assert ("1 row damaged, to be computed again" in capsys.readouterr().err) == (damage == "row")


def test_a_pipe_in_place_of_the_file_does_not_block(index, tmp_path):
    (tmp_path / "cache").mkdir()
    os.mkfifo(tmp_path / "cache" / "embeddings.rows")
    computed = []
    thread = threading.Thread(target=lambda: computed.append(complete(index, tmp_path)[1]), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert computed == [45]


def test_embeddings_of_another_set_do_not_count(index, tmp_path):
    complete(index, tmp_path)
    index.xxh3[5] += np.uint64(1)
    assert store(index, tmp_path)._missing().tolist() == [5]


def test_a_network_without_a_digest_of_its_own_is_tried_first(index, tmp_path, capsys):
    complete(index, tmp_path, verify=True)
    assert complete(index, tmp_path, verify=True)[1] == module.PROBES
    capsys.readouterr()

    def other(images):
        other.images += len(images)
        return np.roll(Network()(255 - images), 1, axis=1) * np.arange(6)

    other.images = 0
    complete(index, tmp_path, embed=other, verify=True)
    assert other.images == module.PROBES + 45
    assert "embeddings.rows: the network returns other embeddings now: computed again" in capsys.readouterr().err


def test_a_second_process_waits_for_the_first(index, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    folder = tmp_path / "cache"
    folder.mkdir()
    told = threading.Event()
    monkeypatch.setattr(module, "print_stderr", lambda line: (told.set(), lines.append(line)))
    lines = []
    second = threading.Thread(target=complete, args=(index, tmp_path))
    with locked(folder, "embedding"):
        second.start()
        assert told.wait(PATIENCE_S)
        assert not (folder / "embeddings.rows").exists()
    second.join(PATIENCE_S)
    assert lines == [f"{folder}: another process computes these embeddings; waiting for it"]
    assert not len(store(index, tmp_path)._missing())


@pytest.mark.parametrize("scale", [0.0, float("nan")])
def test_an_embedding_that_is_no_direction_is_one_line(index, tmp_path, scale):
    says = "image n000001/0001_01 is zero, which is no" if scale == 0 else "embeddings are not finite"
    with pytest.raises(ProtocolError, match=says):
        complete(index, tmp_path, embed=Network(scale=scale))


def test_a_damaged_image_is_one_line(index, tmp_path):
    tar = index.root / "shard-000001.tar"
    content = bytearray(tar.read_bytes())
    row = int(np.flatnonzero(index.shard == 1)[0])
    content[int(index.offset[row]) + 300] ^= 0xFF
    tar.write_bytes(content)
    with pytest.raises(ShardError, match=r"is damaged: its xxh3 does not match; run: .*verify"):
        complete(index, tmp_path)


def test_faces_are_transformed_to_the_template_of_the_network(index):
    (ours,) = set_requests(index, np.array([3]), Preprocessing(size=96))
    (theirs,) = set_requests(index, np.array([3]), NAMED_SPECS["arcface"])
    assert ours.template is None
    assert theirs.template.name == "seed"
    with pytest.raises(ProtocolError, match=r"the images are aligned .template seed., but the network was trained on"):
        set_requests(index, np.array([3]), Preprocessing.unaligned())


def test_the_path_may_be_a_string(index, tmp_path):
    assert SetEmbeddings(str(tmp_path / "a.rows"), index, "a").path == tmp_path / "a.rows"


def test_another_process_must_see_the_file(index, tmp_path):
    with pytest.raises(ProtocolError, match=r"not found, though the first process has written it; use an .LRFR_DATA"):
        store(index, tmp_path).open()
