"""Loader: pixels, labels and sizes of batches, and resuming on any number of ranks."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.load.degrade import degrade
from pipeline.load.loader import Loader
from pipeline.philox import draws
from shards.index import ShardIndex, ShardReader
from tests.pipeline.load.batches import BATCH, STEPS, assert_same, batches_of, global_batches


def test_shapes_and_types_of_a_batch(index):
    batch = batches_of(index, 1)[0]
    assert batch.images.shape == (4, BATCH, 128, 128, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    assert batch.labels.dtype == torch.int64
    assert len(set(batch.labels.tolist())) == BATCH
    assert batch.sizes.tolist() == [[size] * BATCH for size in (128, 8, 12, 16)]
    assert (batch.state.epoch, batch.state.step) == (0, 1)


def test_originals_are_flipped_as_the_images_and_not_degraded(index):
    with Loader(index, batch_size=BATCH, originals=True) as loader:
        batch, flips = next(loader), loader._sampler.draw(0, 0).flips
    assert torch.equal(batch.originals[0], batch.images[0])  # the view of 128 px
    with ShardReader(index) as reader:
        for view in range(4):
            for place in range(BATCH):
                jpeg = np.frombuffer(reader.image(int(batch.rows[view, place])), np.uint8)
                crop = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1].astype(int)
                crop = crop[:, ::-1] if flips[view, place] else crop
                assert abs(batch.originals[view, place].numpy() - crop).max() <= 4  # of two decoders
    assert 0 < flips.sum() < flips.size
    assert batches_of(index, 1)[0].originals is None


def test_the_loader_knows_its_position(index):
    with Loader(index, batch_size=BATCH) as batches:
        assert batches.state.step == 0
        assert next(batches).state == batches.state


def test_pixels_equal_those_of_opencv_and_pillow(index):
    """Oracle: decode each image with OpenCV, flip and degrade it with Pillow."""
    with Loader(index, batch_size=BATCH, mode="exact", threads=1) as loader, ShardReader(index) as reader:
        compared = flipped = 0
        for step in range(2):
            draw = loader._sampler.draw(0, step)
            batch = next(loader)
            assert np.array_equal(batch.rows, draw.rows)
            assert np.array_equal(index.labels[draw.classes], batch.labels.numpy())
            for view, size in enumerate(batch.sizes[:, 0].tolist()):
                for place in range(BATCH):
                    pixels = cv2.imdecode(
                        np.frombuffer(reader.image(int(draw.rows[view, place])), np.uint8), cv2.IMREAD_COLOR
                    )
                    image = Image.fromarray(pixels[..., ::-1])
                    if draw.flips[view, place]:
                        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                        flipped += 1
                    if size != 128:
                        image = image.resize((size, size), Image.Resampling.BICUBIC).resize(
                            (128, 128), Image.Resampling.BICUBIC
                        )
                    assert np.array_equal(batch.images[view, place].numpy(), np.asarray(image))
                    compared += 1
    assert compared == 32
    assert 4 < flipped < 28


def test_labels_match_the_index(index):
    labels = {row["key"]: row["label"] for row in pq.read_table(index.root / "index.parquet").to_pylist()}
    with Loader(index, batch_size=BATCH, threads=1) as loader:
        for step in range(2):
            draw = loader._sampler.draw(0, step)
            batch = next(loader)
            for place, label in enumerate(batch.labels.tolist()):
                assert {labels[index.key(int(row))] for row in draw.rows[:, place]} == {label}


def test_other_views(index):
    batch = batches_of(index, 1, views=((16, 16), (128, 128), (20, 20)))[0]
    assert batch.images.shape[0] == 3
    assert batches_of(index, 1, views=((128, 128),))[0].images.shape == (1, BATCH, 128, 128, 3)


def test_ranges_draw_a_size_for_each_image(index):
    """Sizes are the same on any number of ranks. Sizes of 128 px and more leave a crop unchanged."""
    views = ((8, 32), (100, 200), (128, 128))
    (batch,) = batches_of(index, 1, views=views)
    plain = batches_of(index, 1, views=((128, 128),) * 3)[0].images
    low, high, whole = batch.sizes
    assert len(set(low.tolist())) > 1
    assert ((low >= 8) & (low <= 32)).all()
    assert ((high >= 100) & (high <= 128)).all()
    assert (whole == 128).all()
    for view, sizes in enumerate(batch.sizes):
        for place, size in enumerate(sizes.tolist()):
            expected = degrade(plain[view, place], size, "fast")
            assert torch.equal(batch.images[view, place], expected)
    ranks = [batches_of(index, 1, views=views, rank=rank, world_size=2)[0] for rank in range(2)]
    assert np.array_equal(np.concatenate([one.sizes for one in ranks], 1), batch.sizes)


def test_sizes_of_a_range_are_uniform():
    size_draws = draws(0, 0, slice(0, 20_000), 1)[2]
    sizes = 8 + (size_draws * np.uint64(25) >> np.uint64(31))
    counts = np.bincount(sizes.ravel().astype(int))[8:]
    assert len(counts) == 25
    assert abs(counts / 800 - 1).max() < 0.15


def test_a_seed_repeats_its_batches_and_another_does_not(index):
    first, again, other = (global_batches([batches_of(index, 2, seed=seed)]) for seed in (0, 0, 1))
    assert_same(first, again)
    assert not torch.equal(first[0][1], other[0][1])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_the_global_batches(index, world_size):
    alone = global_batches([batches_of(index, STEPS)])
    together = global_batches(
        [batches_of(index, STEPS, rank=rank, world_size=world_size) for rank in range(world_size)]
    )
    assert_same(together, alone)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 4), (4, 1)])
@pytest.mark.parametrize("consumed", [1, 2, 3])
def test_resuming_gives_the_same_batches_on_any_number_of_ranks(index, before, after, consumed):
    """The saved state does not count the batches that DALI decoded ahead."""
    alone = global_batches([batches_of(index, STEPS)])
    states = [batches_of(index, consumed, rank=rank, world_size=before)[-1].state for rank in range(before)]
    assert len(set(states)) == 1
    rest = [
        batches_of(index, STEPS - consumed, rank=rank, world_size=after, resume=states[0].to_dict())
        for rank in range(after)
    ]
    assert_same(global_batches(rest), alone[consumed:])


def test_a_loader_used_twice_continues_its_stream(index):
    """Images that DALI decoded ahead in the first use are not paired with labels of the second."""
    alone = global_batches([batches_of(index, STEPS)])
    loader = Loader(index, batch_size=BATCH, threads=1)
    batches = []
    for count in (2, STEPS - 2):
        with loader:
            batches += [next(loader) for _ in range(count)]
    assert_same(global_batches([batches]), alone)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_batches(index):
    """nvJPEG and libjpeg may differ by a level or two. Queued work delays the reads: no buffer may be reused before."""
    expected = global_batches([batches_of(index, STEPS, mode="exact")])
    busy = torch.randn(4096, 4096, device="cuda")
    batches = []
    with Loader(index, batch_size=BATCH, device="cuda", mode="exact") as loader:
        for _ in range(STEPS):
            for _ in range(20):
                busy = busy @ busy / 64
            batches.append(next(loader))
    for (images, labels), batch in zip(expected, batches, strict=True):
        assert batch.images.device == batch.labels.device
        assert torch.equal(labels, batch.labels.cpu())
        assert (images.int() - batch.images.cpu().int()).abs().float().mean() < 1.0


def test_index_memory_is_small(shard_set):
    index = ShardIndex(shard_set)
    assert sum(
        column.nbytes for column in (index.label, index.shard, index.offset, index.size, index.xxh3)
    ) == 28 * len(index)


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(8, None, 8), (8, "2", 4), (2, "4", 1), (64, "2", 16), (3, "many", 3)]
)
def test_threads_are_the_cores_of_the_machine_shared_by_its_processes(index, monkeypatch, cores, processes, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert Loader(index, batch_size=BATCH)._threads == threads
    assert Loader(index, batch_size=BATCH, threads=5)._threads == 5


def test_an_open_loader_has_threads_and_no_processes(index):
    """A worker process could be killed or outlive a killed trainer."""

    def children():
        tasks = Path("/proc/self/task").iterdir()
        return {child for task in tasks for child in (task / "children").read_text().split()}

    before = children()
    with Loader(index, batch_size=BATCH) as loader:
        next(loader)
        assert children() == before
