"""The loader: what it decodes, who is in a batch, and that it goes on where it stopped on any number of ranks."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.load.degrade import degrade
from pipeline.load.loader import Loader
from pipeline.load.sampler import SamplerError
from pipeline.philox import draws
from shards.errors import ShardError
from shards.index import ShardIndex, ShardReader

BATCH = 4
STEPS = 5  # two epochs of two steps and one more


def take(index, steps, **options):
    with Loader(index, batch_size=BATCH, threads=1, **options) as loader:
        return [next(loader) for _ in range(steps)]


def globally(per_rank):
    """Batches of all ranks put together: (images, labels) by step."""
    return [
        (torch.cat([batch.images for batch in batches], 1), torch.cat([batch.labels for batch in batches]))
        for batches in zip(*per_rank, strict=True)
    ]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for (images, labels), (other_images, other_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(labels, other_labels)
        assert torch.equal(images, other_images)


@pytest.fixture
def index(shard_set):
    return ShardIndex(shard_set)


def test_a_batch_is_what_it_says(index):
    batch = take(index, 1)[0]
    assert batch.images.shape == (4, BATCH, 128, 128, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    assert batch.labels.dtype == torch.int64
    assert len(set(batch.labels.tolist())) == BATCH
    assert batch.sizes.tolist() == [[size] * BATCH for size in (128, 8, 12, 16)]
    assert (batch.state.epoch, batch.state.step) == (0, 1)


def test_pixels_are_the_stored_ones_flipped_and_degraded_as_pillow_does(index):
    """Every image of several batches against a walk with OpenCV and Pillow over the same draws."""
    with Loader(index, batch_size=BATCH, mode="exact", threads=1) as loader, ShardReader(index) as reader:
        compared = flipped = 0
        for step in range(2):
            draw = loader._sampler.draw(0, step)
            batch = next(loader)
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


def test_labels_are_those_of_the_index(index):
    labels = {row["key"]: row["label"] for row in pq.read_table(index.root / "index.parquet").to_pylist()}
    with Loader(index, batch_size=BATCH, threads=1) as loader:
        for step in range(2):
            draw = loader._sampler.draw(0, step)
            batch = next(loader)
            for place, label in enumerate(batch.labels.tolist()):
                assert {labels[index.key(int(row))] for row in draw.rows[:, place]} == {label}


def test_any_views(index):
    batch = take(index, 1, views=((16, 16), (128, 128), (20, 20)))[0]
    assert batch.images.shape[0] == 3
    assert take(index, 1, views=((128, 128),))[0].images.shape == (1, BATCH, 128, 128, 3)


def test_ranges_draw_a_size_for_each_image(index):
    """Sizes are part of the stream: the same on any number of ranks; a size from 128 px on leaves a crop as it is."""
    views = ((8, 32), (100, 200), (128, 128))
    (batch,) = take(index, 1, views=views)
    plain = take(index, 1, views=((128, 128),) * 3)[0].images
    low, high, whole = batch.sizes
    assert len(set(low.tolist())) > 1
    assert ((low >= 8) & (low <= 32)).all()
    assert ((high >= 100) & (high <= 128)).all()
    assert (whole == 128).all()
    for view, sizes in enumerate(batch.sizes):
        for place, size in enumerate(sizes.tolist()):
            expected = degrade(plain[view, place], size, "fast")
            assert torch.equal(batch.images[view, place], expected)
    ranks = [take(index, 1, views=views, rank=rank, world_size=2)[0] for rank in range(2)]
    assert np.array_equal(np.concatenate([one.sizes for one in ranks], 1), batch.sizes)


def test_a_range_is_drawn_evenly():
    chances = draws(0, 0, slice(0, 20_000), 1)[2]
    sizes = 8 + (chances * np.uint64(25) >> np.uint64(31))
    counts = np.bincount(sizes.ravel().astype(int))[8:]
    assert len(counts) == 25
    assert abs(counts / 800 - 1).max() < 0.15


def test_seeds_differ_and_repeat(index):
    first, again, other = (globally([take(index, 2, seed=seed)]) for seed in (0, 0, 1))
    assert_same(first, again)
    assert not torch.equal(first[0][1], other[0][1])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_the_global_batches(index, world_size):
    alone = globally([take(index, STEPS)])
    together = globally([take(index, STEPS, rank=rank, world_size=world_size) for rank in range(world_size)])
    assert_same(together, alone)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 4), (4, 1)])
@pytest.mark.parametrize("consumed", [1, 2, 3])
def test_a_saved_state_goes_on_with_the_same_batches_on_any_number_of_ranks(index, before, after, consumed):
    """DALI has decoded ahead of what was consumed; the saved state must not count that."""
    alone = globally([take(index, STEPS)])
    states = [take(index, consumed, rank=rank, world_size=before)[-1].state for rank in range(before)]
    assert len(set(states)) == 1
    rest = [
        take(index, STEPS - consumed, rank=rank, world_size=after, resume=states[0].to_dict()) for rank in range(after)
    ]
    assert_same(globally(rest), alone[consumed:])


def test_a_loader_used_twice_goes_on_where_it_stopped(index):
    """What DALI had decoded ahead in the first use must not meet the labels of the second."""
    alone = globally([take(index, STEPS)])
    loader = Loader(index, batch_size=BATCH, threads=1)
    batches = []
    for count in (2, STEPS - 2):
        with loader:
            batches += [next(loader) for _ in range(count)]
    assert_same(globally([batches]), alone)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_batches(index):
    """nvJPEG and libjpeg may differ by a level or two; behind a queue of work no buffer is used again too early."""
    expected = globally([take(index, STEPS, mode="exact")])
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


def test_a_state_of_other_shards_is_refused(index):
    saved = take(index, 1)[0].state.to_dict()
    with pytest.raises(SamplerError, match="loader state: it belongs to other shards"):
        Loader(index, batch_size=BATCH, resume={**saved, "index_digest": "0"})


def test_more_identities_than_there_are_is_refused(index):
    with pytest.raises(SamplerError, match="there are 9: lower --batch-size"):
        Loader(index, batch_size=64)


def test_a_damaged_image_stops_the_loader_by_name(index):
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


def test_index_memory_is_small(shard_set):
    index = ShardIndex(shard_set)
    assert sum(
        column.nbytes for column in (index.label, index.shard, index.offset, index.size, index.xxh3)
    ) == 28 * len(index)
