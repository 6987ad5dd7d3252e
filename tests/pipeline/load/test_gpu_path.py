"""What the loader does for a GPU, on a CPU: exact degradation without groups, one upload, outputs kept until they are read."""

from __future__ import annotations

import gc
import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch

from pipeline.degradation.parameters import parameters
from pipeline.load.decoder import KEPT_OUTPUTS, Decoder, checked_device
from pipeline.load.degrade import degrade, degrade_each
from pipeline.load.degrade_views import degrade_on_gpu
from pipeline.load.loader import Loader
from pipeline.load.upload import ALIGNMENT, pack, packed_size, unpack
from pipeline.load.views import checked_views
from pipeline.philox import degradation_numbers
from shards.index import ShardIndex
from tests.pipeline.load.batches import BATCH, assert_same, batches_of, global_batches
from tests.transfers import transfers

VIEWS = ((128, 128), (8, 32), (100, 156), (16, 16), (8, 24, "surveillance"), (126, 128, "webcam"))


@pytest.fixture
def noise():
    return torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("possible", [range(2, 32), range(8, 9), range(31, 32)])
def test_each_image_is_degraded_to_its_own_size_as_pillow_does(noise, possible, monkeypatch):
    monkeypatch.setattr("pipeline.load.degrade.CHUNK_EACH", 16)
    sizes = torch.tensor([possible[number % len(possible)] for number in range(len(noise))])
    flips = torch.arange(len(noise)) % 3 == 0
    out = torch.empty_like(noise)
    degrade_each(out, noise, sizes=sizes, possible=possible, flips=flips)
    for image, size, flip, ours in zip(noise, sizes.tolist(), flips.tolist(), out, strict=True):
        expected = degrade(image, size, "exact")
        assert torch.equal(ours, expected.flip(1) if flip else expected)


def test_the_path_of_a_gpu_gives_the_batches_of_the_cpu(shard_set, monkeypatch):
    """Both paths on the CPU; all arrays of a batch go through one packed array."""
    index = ShardIndex(shard_set)
    expected = global_batches([batches_of(index, 3, views=VIEWS, mode="exact")])
    packed = []

    def on_gpu(out, crops, views, values, *, sizes, flips, mode):
        degrade_on_gpu(out, crops, views, values, sizes=torch.from_numpy(sizes), flips=torch.from_numpy(flips))

    def upload(arrays, device):
        packed.append(np.empty(packed_size(arrays), np.uint8))
        pack(arrays, packed[-1])
        return unpack(torch.from_numpy(packed[-1]), arrays)

    monkeypatch.setattr("pipeline.load.loader.degrade_on_cpu", on_gpu)
    monkeypatch.setattr("pipeline.load.loader.upload", upload)
    with Loader(index, batch_size=BATCH, views=VIEWS, mode="exact", threads=1) as loader:
        ours = [next(loader) for _ in range(3)]
    assert_same(global_batches([ours]), expected)
    for view in (2, 5):  # some are degraded, some are not
        assert {size == 128 for batch in ours for size in batch.sizes[view].tolist()} == {True, False}
    assert len(packed) == 3


@pytest.mark.heavy
def test_degradation_on_a_gpu_needs_no_transfer_or_synchronisation(monkeypatch):
    """Only the first batch, for which constants are sent."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: tensor.device.type == "meta"))
    views, count, meta = checked_views(VIEWS), 6, torch.device("meta")
    numbers, sizes = degradation_numbers(0, 0, slice(0, count), 0), np.full(count, 16)
    drawn = [parameters(view.preset, numbers, sizes, sizes > 0) if view.preset else {} for view in views]
    values = [{name: torch.from_numpy(one).to(meta) for name, one in found.items()} for found in drawn]
    crops = torch.empty((len(views), count, 128, 128, 3), dtype=torch.uint8, device=meta)
    sizes_there, flips = (
        torch.empty((len(views), count), dtype=kind, device=meta) for kind in (torch.int64, torch.bool)
    )
    sent = []
    for _ in range(2):
        with transfers() as found:
            degrade_on_gpu(torch.empty_like(crops), crops, views, values, sizes=sizes_there, flips=flips)
        sent.append(len(found))
    assert sent[0] > 0
    assert sent[1] == 0


def test_packed_arrays_keep_types_shapes_and_alignment():
    rng = np.random.default_rng(0)
    arrays = {
        "flips": rng.random((3, 5)) < 0.5,
        "transposed": rng.integers(0, 9, (4, 7)).T,
        "values": rng.random((2, 3)).astype(np.float32),
        "none": np.empty((0, 3), np.int64),
    }
    packed = np.empty(packed_size(arrays), np.uint8)
    pack(arrays, packed)
    found = unpack(torch.from_numpy(packed), arrays)
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == torch.from_numpy(values).dtype
        assert np.array_equal(found[name].numpy(), values)
        assert found[name].storage_offset() * found[name].element_size() % ALIGNMENT == 0


class FakeEvent:
    """Happens when a test says so, or when somebody waits for it."""

    made: ClassVar[list[FakeEvent]] = []

    def __init__(self):
        self.passed, self.waited_for, self.stream = False, False, None
        self.made.append(self)

    def record(self, stream):
        self.stream = stream

    def query(self):
        return self.passed

    def synchronize(self):
        self.passed = self.waited_for = True


class FakeOutput:
    def __init__(self):
        self.pixels = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)

    def as_tensor(self):
        return self.pixels


class FakePipe:
    def __init__(self, **settings):
        self.settings, self.streams, self.outputs = settings, [], []

    def build(self):
        pass

    def run(self, stream):
        output = FakeOutput()
        self.streams.append(stream)
        self.outputs.append(weakref.ref(output))
        return (output,)


@pytest.fixture
def gpu_decoder(monkeypatch):
    monkeypatch.setattr(FakeEvent, "made", [])
    monkeypatch.setattr("pipeline.load.decoder.decoder", FakePipe)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    return Decoder(lambda: None, torch.device("cuda", 1), images=2, threads=3)


def step(decoder):
    """One batch, of which the test holds nothing."""
    decoder.run()
    decoder.queued()


def alive(pipe):
    gc.collect()
    return [output() is not None for output in pipe.outputs]


def test_outputs_are_bound_to_the_stream_that_reads_them(gpu_decoder):
    step(gpu_decoder)
    assert gpu_decoder._pipe.settings["decode_on"] == "mixed"
    assert gpu_decoder._pipe.settings["device_id"] == 1
    assert gpu_decoder._pipe.streams == [event.stream for event in FakeEvent.made] == ["the stream of cuda:1"]


def test_outputs_are_kept_until_the_gpu_has_read_them_without_waiting(gpu_decoder):
    pipe = gpu_decoder._pipe
    for _ in range(KEPT_OUTPUTS):
        step(gpu_decoder)
    assert alive(pipe) == [True] * KEPT_OUTPUTS
    FakeEvent.made[0].passed = FakeEvent.made[1].passed = True
    step(gpu_decoder)
    assert alive(pipe) == [False, False, *[True] * (KEPT_OUTPUTS - 1)]
    assert not any(event.waited_for for event in FakeEvent.made)


def test_a_host_that_is_far_ahead_waits_for_the_oldest_batch_alone(gpu_decoder):
    for _ in range(KEPT_OUTPUTS + 2):
        step(gpu_decoder)
    assert [event.waited_for for event in FakeEvent.made] == [True, True, *[False] * KEPT_OUTPUTS]


def test_closing_waits_until_all_is_read(gpu_decoder):
    step(gpu_decoder)
    gpu_decoder.run()
    gpu_decoder.close()  # an exception came before the work was queued
    assert [event.waited_for for event in FakeEvent.made] == [True, True]


@pytest.mark.parametrize(("device", "number"), [("cuda", 1), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_gets_its_number(gpus, device, number):
    assert checked_device(device) == torch.device("cuda", number)


def test_a_gpu_that_is_not_there_is_named(gpus):
    with pytest.raises(ValueError, match=r"^device is 'cuda:2', but PyTorch finds 2 GPUs, from cuda:0 on$"):
        checked_device("cuda:2")


@pytest.fixture
def gpus(monkeypatch):
    """Two, of which the second is the current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
