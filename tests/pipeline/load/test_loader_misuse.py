"""Loaders that are used wrongly, or whose images are damaged, say so."""

from __future__ import annotations

import collections
import itertools
import multiprocessing
from concurrent import futures

import numpy as np
import pytest
import torch

from model.training.views import parse_views
from pipeline.load.loader import Loader
from pipeline.load.sampler import SamplerError
from shards.errors import ShardError
from tests.pipeline.load.batches import BATCH, STEPS, batches_of, jpeg_of, write_set
from tests.processes import PATIENCE_S


def test_a_state_of_other_shards_is_rejected(index):
    saved = batches_of(index, 1)[0].state.to_dict()
    with pytest.raises(SamplerError, match="loader state: belongs to other shards"):
        Loader(index, batch_size=BATCH, resume={**saved, "index_digest": "0"})


def test_a_batch_larger_than_the_data_is_rejected(index):
    with pytest.raises(SamplerError, match="larger than the number of identities, 9; lower --batch-size"):
        Loader(index, batch_size=64)


def test_a_damaged_image_stops_the_loader_and_is_named(index):
    for row in range(len(index)):
        with open(index.root / f"shard-{index.shard[row]:06d}.tar", "r+b") as tar:
            tar.seek(int(index.offset[row]) + 300)
            byte = tar.read(1)
            tar.seek(-1, 1)
            tar.write(bytes([byte[0] ^ 1]))
    with (
        pytest.raises(ShardError, match=r"shard-\d+\.tar: image n\d+/\d+_01 at byte \d+ is damaged"),
        Loader(index, batch_size=BATCH, threads=1) as loader,
    ):
        next(loader)


def test_a_loader_outside_its_block_says_how_to_use_it(index):
    loader = Loader(index, batch_size=BATCH, threads=1)
    assert repr(loader).endswith(": epoch 0, step 0, closed)")
    with pytest.raises(RuntimeError, match="the loader is closed: use it in a with block"):
        next(loader)
    loader.__exit__()  # as a clean-up of what may have begun
    with loader:
        batch = next(loader)
        assert repr(loader) == (
            f"Loader({index!r}, batch_size=4, views=((128, 128), (8, 8), (12, 12), (16, 16)), device='cpu': epoch 0, step 1)"
        )
    assert repr(batch) == "Batch(images (4, 4, 128, 128, 3) uint8 on cpu, epoch 0, step 1)"
    with pytest.raises(RuntimeError, match="the loader is closed"):
        next(iter(loader))


def test_an_open_loader_is_not_opened_again_and_threads_share_its_batches(index):
    with Loader(index, batch_size=BATCH, threads=1) as loader:
        with pytest.raises(RuntimeError, match="the loader is open already"):
            loader.__enter__()
        with futures.ThreadPoolExecutor(4) as pool:
            steps = list(pool.map(lambda _: next(loader).state.step, range(STEPS)))
    assert sorted(steps) == sorted(batch.state.step for batch in batches_of(index, STEPS))


def test_a_loader_that_was_opened_before_a_fork_says_so(index):
    """As in a worker of PyTorch's DataLoader; the threads that it waits for are in the other process."""

    def read(end):
        try:
            next(loader)
        except RuntimeError as error:
            loader.__exit__()  # and DALI would wait for its own
            end.send(str(error))

    ours, theirs = multiprocessing.Pipe()
    with Loader(index, batch_size=BATCH, threads=1) as loader:
        child = multiprocessing.get_context("fork").Process(target=read, args=(theirs,), daemon=True)
        child.start()
        assert ours.poll(PATIENCE_S)
        assert ours.recv().startswith("the loader was opened in another process")
        child.join(PATIENCE_S)
        assert child.exitcode == 0
        next(loader)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"index": "data/shards"}, TypeError, r"index is 'data/shards', expected a ShardIndex, such as ShardIndex\("),
        ({"batch_size": "4"}, TypeError, "batch_size is '4', expected a whole number"),
        ({"batch_size": 4.0}, TypeError, "batch_size is 4.0, expected a whole number"),
        ({"batch_size": 0}, ValueError, "batch_size is 0, expected at least 1"),
        ({"threads": 0}, ValueError, "threads is 0, expected at least 1"),
        ({"threads": 10**6}, ValueError, "threads is 1000000, expected at least 1 and at most 1024"),
        ({"seed": None}, TypeError, "seed is None, expected a whole number"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank is 2, expected at least 0 and at most 1"),
        ({"views": (128, 8)}, TypeError, r"views is \(128, 8\), expected a smallest and a largest size in px"),
        ({"views": "128,8"}, TypeError, "views is '128,8', expected a smallest and a largest"),
        ({"views": 128}, TypeError, "views is 128, expected a smallest and a largest"),
        ({"views": ()}, TypeError, r"views is \(\), expected a smallest and a largest"),
        ({"views": parse_views("128,8")}, TypeError, "expected a smallest and a largest"),
        ({"views": ((8.0, 16.0),)}, TypeError, "expected a smallest and a largest"),
        ({"views": ((16, 8),)}, ValueError, "expected sizes of at least 2 px, the smaller first"),
        ({"views": np.array([[16, 8]])}, ValueError, "expected sizes of at least 2 px, the smaller first"),
        ({"views": ((1, 8),)}, ValueError, "expected sizes of at least 2 px, the smaller first"),
        ({"mode": "quick"}, ValueError, "mode is 'quick', expected one of fast, exact"),
        ({"device": "gpu"}, ValueError, "device is 'gpu', expected cpu, cuda or cuda:N"),
        ({"device": 1.5}, ValueError, "device is 1.5, expected cpu, cuda or cuda:N"),
        ({"device": "mps"}, ValueError, "device is 'mps', expected cpu, cuda or cuda:N"),
        pytest.param(
            {"device": "cuda"},
            ValueError,
            "device is 'cuda', but PyTorch finds no GPU; use cpu",
            marks=pytest.mark.no_gpu,
        ),
        ({"resume": "state"}, TypeError, r"resume is 'state', expected the dict that batch.state.to_dict\(\) returns"),
    ],
)
def test_wrong_arguments_say_what_was_expected(index, options, kind, says):
    with pytest.raises(kind, match=says):
        Loader(options.pop("index", index), **{"batch_size": BATCH, **options})


def test_views_may_be_an_array_or_a_generator(index):
    pairs = [[128, 128], [8, 32]]
    expected = repr(Loader(index, batch_size=BATCH, views=((128, 128), (8, 32))))
    for views in (pairs, np.array(pairs), torch.tensor(pairs), iter(pairs)):
        assert repr(Loader(index, batch_size=BATCH, views=views)) == expected


@pytest.mark.parametrize(
    "position",
    [
        {"epoch": None},
        {"step": "1"},
        {"epoch": 1.5},
        {"epoch": True},
        {"step": -1},
        {"window": None},
        {"window": ""},
        {"window": False},
        {"window": 0.0},
        {"global_batch": "\x1b[2J"},
    ],
)
def test_a_state_without_a_position_is_rejected(index, position):
    saved = batches_of(index, 1)[0].state.to_dict()
    with pytest.raises(SamplerError, match=r"is missing or of the wrong type|epoch and step from 0"):
        Loader(index, batch_size=BATCH, resume={**saved, **position})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda _: b"not a jpeg" * 50, "cannot be used: cannot be decoded (500 bytes, not an image or damaged)"),
        (lambda jpeg: jpeg[: len(jpeg) // 2], "cannot be used: damaged JPEG"),
        (lambda jpeg: jpeg[:-2], "cannot be used: damaged JPEG"),
        (lambda _: jpeg_of(64), "has 64x64 px, expected 128"),
        (lambda _: b"x", "cannot be used: cannot be decoded"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_although_its_checksum_is_right(tmp_path, change, problem):
    whole = jpeg_of(128)
    index = write_set(tmp_path, [change(whole) if number == 3 else whole for number in range(8)])
    loader = Loader(index, batch_size=4, views=[(128, 128)] * 2, threads=1)
    with pytest.raises(ShardError) as error, loader:
        collections.deque(itertools.islice(loader, 8))
    assert str(error.value).startswith(f"{tmp_path / 'shard-000000.tar'}: image n1/3 {problem}")
    assert str(error.value).endswith("; build the shard set again")


def test_images_that_all_have_another_size_are_not_mixed(tmp_path):
    index = write_set(tmp_path, [jpeg_of(64)] * 8)
    with (
        pytest.raises(ShardError, match="has 64x64 px, expected 128"),
        Loader(index, batch_size=4, views=[(128, 128)], threads=1) as loader,
    ):
        next(loader)


def test_bytes_after_the_end_of_a_jpeg_are_ignored(tmp_path):
    index = write_set(tmp_path, [jpeg_of(128) + b"more"] * 8)
    with Loader(index, batch_size=4, views=[(128, 128)], threads=1) as loader:
        assert next(loader).images.shape == (1, 4, 128, 128, 3)
