"""Pixels: what a GPU decodes and degrades, against the CPU."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.utils.dlpack

from benchmarks.speed.faces import CROP_SIZE
from benchmarks.speed.gpu import batch_of
from benchmarks.speed.loader import read_batches, start_decoder
from pipeline.degradation.parameters import parameters
from pipeline.degradation.presets import PRESETS
from pipeline.degradation.realistic import degrade_as
from pipeline.load.decoder import KEPT_OUTPUTS
from pipeline.load.degrade import degrade
from pipeline.load.loader import Batch, Loader
from pipeline.load.views import ViewSpec
from pipeline.philox import degradation_numbers
from shards.messages import counted
from tools.gpu.parts import Work

_HW_LOADS = (0.0, 0.9, 1.0)  # of the hardware decoder; the rest of a batch is decoded by kernels
_MEAN_LEVELS = 1.0  # that the two decoders may differ by, as tests/pipeline/load/test_loader.py allows
_SIZES, _QUICK_SIZES = range(2, CROP_SIZE + 1), (2, 8, 13, 64, 127)  # px
_PRESET_SHARE = 0.01  # of the values that may differ: sums are exact, but a division may round otherwise
_VIEWS: tuple[ViewSpec, ...] = ((128, 128), (8, 8), (12, 12), (16, 16), (8, 32), (8, 32, "surveillance"))
_STEPS = KEPT_OUTPUTS + 2  # so that the host has to wait for the GPU


def difference(found: torch.Tensor, expected: torch.Tensor) -> tuple[str, float]:
    """How much two uint8 images differ, in words, and the mean difference in grey levels."""
    apart = (found.cpu().int() - expected.cpu().int()).abs()
    if not apart.any():
        return f"all {apart.numel():,} values equal", 0.0
    share, mean = float((apart > 0).float().mean()), float(apart.float().mean())
    return f"{share:.3%} of the values differ, by {apart.max()} at most, {mean:.4f} in the mean", mean


def decode(work: Work) -> None:
    """DALI's mixed decoding against its decoding on the CPU."""
    (jpegs,) = read_batches(work.index, 64 if work.quick else 512, 1)
    expected = _decoded(jpegs)
    for share in _HW_LOADS:
        with work.report.attempt(f"mixed, hw_decoder_load {share}"):
            text, mean = difference(_decoded(jpegs, 0, "mixed", share), expected)
            work.report.check(f"mixed, hw_decoder_load {share}", mean < _MEAN_LEVELS, text)


def _decoded(jpegs: np.ndarray, gpu: int | None = None, *how: object) -> torch.Tensor:
    """(N, S, S, 3) uint8 on the CPU."""
    pipe = start_decoder([jpegs], len(jpegs), gpu, *how)
    (images,) = pipe.run()
    return torch.utils.dlpack.from_dlpack(images.as_tensor()).cpu().clone()


def batch(work: Work) -> None:
    """Whole batches of the loader, also while the GPU is busy: no buffer may be used again before it was read."""
    size = batch_of(work.setup, work.index, work.device)
    expected, found = (_batches(work, size, device) for device in ("cpu", work.device))
    for name in ("labels", "sizes", "rows"):
        pairs = [(getattr(one, name), getattr(other, name)) for one, other in zip(found, expected, strict=True)]
        equal = all(np.array_equal(torch.as_tensor(one).cpu(), torch.as_tensor(other)) for one, other in pairs)
        work.report.check(
            f"{name} of {_STEPS} batches of {len(_VIEWS)} x {size}", equal, "equal" if equal else "differ"
        )
    for number, view in enumerate(_VIEWS):
        images = [torch.cat([one.images[number].cpu() for one in batches]) for batches in (found, expected)]
        text, mean = difference(*images)
        # what differs is the decoder; noise and compression of a preset make more of it
        work.report.check(f"images of view {view}", mean < (2 if len(view) > 2 else 1) * _MEAN_LEVELS, text)
        if view[0] == view[1] < CROP_SIZE:
            again = torch.cat([degrade(_originals(one)[number].cpu(), view[0]) for one in found])
            text, _ = difference(images[0], again)
            work.report.check(f"the same, from what the {work.device} decoded", torch.equal(images[0], again), text)


def _originals(batch: Batch) -> torch.Tensor:
    assert batch.originals is not None
    return batch.originals


def _batches(work: Work, size: int, device: str) -> list[Batch]:
    options = {"views": _VIEWS, "mode": "exact", "device": device, "originals": True, "threads": 4}
    side = 4096 if device == "cuda" else 64
    busy, batches = torch.randn(side, side, device=device), []
    with Loader(work.index, batch_size=size, **options) as loader:  # type: ignore[arg-type]
        for _ in range(_STEPS):
            for _ in range(10):
                busy = busy @ busy / side**0.5
            batches.append(next(loader))
    return batches


def degrade_all(work: Work) -> None:
    """Bicubic degradation on the device against Pillow, for every size; realistic degradation against the CPU."""
    images = torch.randint(0, 256, (4 if work.quick else 32, CROP_SIZE, CROP_SIZE, 3), dtype=torch.uint8)
    on_device = images.to(work.device)
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        wrong = [
            size
            for size in (_QUICK_SIZES if work.quick else _SIZES)
            if not torch.equal(degrade(on_device, size).cpu(), degrade(images, size))
        ]
        count = len(_QUICK_SIZES if work.quick else _SIZES)
        text = f"differs at {len(wrong)}: {wrong}" if wrong else f"equal to Pillow at {count} sizes from 2 px on"
        work.report.check(f"bicubic, products set to {precision}", not wrong, text)
    torch.set_float32_matmul_precision("highest")
    for preset, some in itertools.product(PRESETS, (images, images[:1])):  # an image alone takes other kernels
        name = f"preset {preset}, {counted(len(some), 'image')}"
        with work.report.attempt(name):
            text, share = _preset_difference(preset, some, work.device)
            work.report.check(name, share <= _PRESET_SHARE, text)


def _preset_difference(name: str, images: torch.Tensor, device: str) -> tuple[str, float]:
    """In words, and the share of the values that differ."""
    sizes = np.random.default_rng(0).integers(8, 33, len(images))
    drawn = parameters(PRESETS[name], degradation_numbers(0, 0, slice(0, len(images)), 0), sizes, sizes % 2 == 0)
    outs = []
    for place in ("cpu", device):
        there = images.to(place)
        values = {key: torch.from_numpy(value).to(place) for key, value in drawn.items()}
        outs.append(torch.empty_like(there))
        degrade_as(outs[-1], there, PRESETS[name], values, sizes=range(8, 33), mode="exact")
    text, _ = difference(outs[1], outs[0])
    return text, float((outs[1].cpu() != outs[0]).float().mean())
