"""Stage ``step``: a training step, and how long training waits for the loader."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import VGGFACE2_IDENTITIES
from benchmarks.speed.baselines import plain_update
from benchmarks.speed.faces import CROP_SIZE, IMAGES_PER_IDENTITY, Setup, build_tree, read_faces, write_tree
from benchmarks.speed.timing import Facts, Timing, against_first, compare_times
from model.training.config import TrainConfig
from model.training.learner import StepInputs
from model.training.loop import train
from model.training.runlog import METRICS, read_metrics
from model.training.state import new_run
from pipeline.load.loader import Loader
from pipeline.spec import Preprocessing, spec_of

VIEWS = 4  # images of an identity in a batch
_SETTINGS: dict[str, Any] = {"views": "128,8,12,16", "lr": 1e-4}
_STEPS, _QUICK_STEPS, _FIRST_STEPS = 24, 8, 4  # of real training; its first steps, which fill queues, do not count
_FACES = 64  # distinct ones in its shards
_PEAK = 989e12  # FLOP/s in dense bf16. Source: NVIDIA's H100 and H200 data sheets, SXM
_SLOWER_CARDS = ("PCIe", "NVL", "MIG")  # in the names of H100s and H200s with a lower peak

Batch = tuple[torch.Tensor, torch.Tensor]  # (V, b, S, S, 3) uint8 images, (b,) int64 labels
Update = Callable[[torch.Tensor, torch.Tensor], object]


def time_step(
    setup: Setup, *, device: str = "cpu", backbone: str = "", batch_size: int = 0, compile: bool = False
) -> Iterator[Timing]:
    """Times four passes in fp32 against one pass in fp32, in bf16 and, with ``compile``, in bf16 by ``torch.compile``."""
    backbone = backbone or ("spherenet4" if setup.quick else "spherenet20")
    size = batch_size or (2 if setup.quick else 8)
    waits = _loader_waits(setup, backbone, size, device)
    updates: dict[str, Update] = {"plain, fp32": plain_update(backbone, device)}
    for name in ("fp32", "bf16", *(["bf16, compiled"] if compile else [])):
        updates[f"ours, {name}"] = our_update(backbone, size, device, name)
    batch = random_batch(size, device)
    flops = count_flops(updates["ours, fp32"], batch)
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    facts = {
        "device": card,
        "TFLOP a step": f"{flops / 1e12:.3f}",
        "loader wait": f"{statistics.median(waits):.2%} of a step in fp32, at most {max(waits):.2%}",
    }
    run = functools.partial(update_on, batches=itertools.repeat(batch), count=1, device=device)
    contenders = against_first({name: functools.partial(run, each) for name, each in updates.items()}, VIEWS * size)
    title = f"Training step, {backbone}, {size} identities"
    timing = compare_times("step", title, contenders, rounds=setup.rounds, warmup=2, facts=facts)
    yield dataclasses.replace(timing, facts=facts | peak_share(timing, card, flops / (VIEWS * size)))


def our_update(backbone: str, batch_size: int, device: str, name: str) -> Update:
    """One update of the training loop, without its logging; ``name``: fp32, TF32, bf16, or bf16, compiled."""
    precision, *compiled = name.split(", ")
    autocast = "fp32" if precision == "TF32" else precision
    config = TrainConfig(
        **_SETTINGS, backbone=backbone, batch_size=batch_size, precision=autocast, compile=bool(compiled)
    )
    state = new_run(config, classes=VGGFACE2_IDENTITIES, preprocessing=Preprocessing(), device=device)
    state.learner.train()

    def update(images: torch.Tensor, labels: torch.Tensor) -> None:
        loss, _ = state.learner(StepInputs(images, labels))
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()

    return in_precision(update, tf32=precision == "TF32")


def in_precision(update: Update, *, tf32: bool) -> Update:
    """``update``, whose float32 products and convolutions a GPU computes in TF32, or not.

    PyTorch's default is TF32 for convolutions alone.
    """

    def run(images: torch.Tensor, labels: torch.Tensor) -> None:
        products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        try:
            update(images, labels)
        finally:
            torch.set_float32_matmul_precision(products)
            torch.backends.cudnn.allow_tf32 = convolutions

    return run


def random_batch(size: int, device: str) -> Batch:
    """Noise, with distinct labels, on the device."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (VIEWS, size, CROP_SIZE, CROP_SIZE, 3), dtype=torch.uint8, generator=generator)
    return images.to(device), torch.randperm(VGGFACE2_IDENTITIES, generator=generator)[:size].to(device)


def update_on(update: Update, batches: Iterator[Batch], count: int, device: str) -> None:
    """Updates on ``count`` batches and waits for the device."""
    for images, labels in itertools.islice(batches, count):
        update(images, labels)
    synchronize(device)


def synchronize(device: str) -> None:
    """Waits until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def count_flops(update: Update, batch: Batch) -> int:
    """Floating-point operations of the products and convolutions of one update."""
    with FlopCounterMode(display=False) as counter:
        update(*batch)
    return counter.get_total_flops()


def peak_share(timing: Timing, card: str, flops: float) -> Facts:
    """Utilisation relative to the bf16 peak of the card, at ``flops`` an image; empty for cards with an unknown peak."""
    if not any(name in card for name in ("H100", "H200")) or any(word in card for word in _SLOWER_CARDS):
        return {}
    return {"of the card's bf16 peak": f"{flops * max(row.rate for row in timing.rows.values()) / _PEAK:.1%}"}


def _loader_waits(setup: Setup, backbone: str, batch_size: int, device: str) -> list[float]:
    """Trains from shards; returns the share of each step that was spent waiting for images."""
    tree, run = setup.scratch / "step-faces", setup.scratch / "step-run"
    steps = _QUICK_STEPS if setup.quick else _STEPS
    config = TrainConfig(**_SETTINGS, backbone=backbone, batch_size=batch_size, steps=steps, log_every=1)
    with contextlib.redirect_stderr(io.StringIO()):
        write_tree(read_faces(setup.data_sets(), _FACES), tree, images=batch_size * IMAGES_PER_IDENTITY, grey=False)
        index = build_tree(tree, setup.scratch / "step-shards", workers=1)
        state = new_run(config, classes=index.manifest.identities, preprocessing=spec_of(index.manifest), device=device)
        views = [(view.low, view.high) for view in config.all_views]
        with Loader(index, batch_size=batch_size, views=views, mode=config.degrade, device=device) as batches:
            if train(batches, state, run) < steps:  # on Ctrl-C it writes a checkpoint and returns
                raise KeyboardInterrupt
    return [row["loader_wait"] for row in read_metrics(run / METRICS)][_FIRST_STEPS:]
