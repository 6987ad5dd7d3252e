"""bench speed step: an update of the network, and how long training waits for its images."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.speed import VGGFACE2
from commands.options import pick_device

if TYPE_CHECKING:
    import torch

    from benchmarks.speed.timing import Timing

_CLASSES = VGGFACE2[1]
_IMAGE, _VIEWS = 128, "128,8,12,16"  # px
_WARM_UP = 2
_TRAINED, _STARTING = 24, 4  # steps of real training, and those of them in which loader and caches fill
_FACES = 64  # different ones in the shards that it reads
_PEAK = 989e12  # FLOP/s, dense bf16; source: NVIDIA's H100 and H200 data sheets, SXM
_ANOTHER_CARD = ("PCIe", "NVL", "MIG")  # words in the names of H100s and H200s that have less

Update = Callable[[], object]
UpdateOn = Callable[["torch.Tensor", "torch.Tensor"], object]


def step(
    *,
    root: Path | None,
    folder: Path,
    rounds: int,
    quick: bool,
    backbone: str | None,
    batch_size: int | None,
    device: str | None,
    compile: bool,
) -> Iterator[Timing]:
    """Four passes in fp32 against one; the share of real training that waits for the loader is among the facts.

    Args:
        root: data sets to take faces from; None: they are generated.  folder: for what is made.
        backbone, batch_size, device: None for the defaults.  compile: time ``torch.compile``, too.

    Raises:
        RootError: ``root`` has no faces of VGGFace2.  OptionError: there is no such backbone.
    """
    import torch

    from benchmarks.speed.timing import Contender, compare_times

    backbone, batch_size = backbone or ("spherenet4" if quick else "spherenet20"), batch_size or (2 if quick else 8)
    device = pick_device(device)
    waits = _loader_waits(root, folder, backbone, batch_size, device, quick=quick)
    updates = _updates(backbone, batch_size, device, compile)
    flops = _flops(updates["ours, fp32"])
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    facts = {
        "device": card,
        "TFLOP a step": f"{flops / 1e12:.3f}",
        "loader wait": f"{statistics.median(waits):.2%} of a step in fp32, at most {max(waits):.2%}",
    }
    contenders = [
        Contender(
            name=name,
            role="baseline" if name.startswith("plain") else "ours",
            run=_waited(update, device),
            amount=4 * batch_size,
        )
        for name, update in updates.items()
    ]
    title = f"Training step, {backbone}, {batch_size} identities"
    timing = compare_times("step", title, contenders, unit="images", rounds=rounds, warm_up=_WARM_UP, facts=facts)
    quickest = float(min(map(statistics.median, timing.seconds.values())))
    yield dataclasses.replace(timing, facts=timing.facts | peak_share(card, flops, quickest))


def _updates(backbone: str, batch_size: int, device: str, compile: bool) -> dict[str, Update]:
    """Each way to do one update, on the same random images."""
    batch = random_batch(batch_size, device)
    ours: dict[str, dict[str, Any]] = {"ours, fp32": {"precision": "fp32"}, "ours, bf16": {"precision": "bf16"}}
    if compile:
        ours["ours, bf16, compiled"] = {"precision": "bf16", "compile": True}
    updates = {"plain, fp32": plain_update(backbone, device)}
    for name, settings in ours.items():
        updates[name] = our_update(backbone, batch_size, device, **settings)
    return {name: functools.partial(update, *batch) for name, update in updates.items()}


def random_batch(batch_size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(V, b, S, S, 3) uint8 images and (b,) labels of identities that differ, on the device."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, batch_size, _IMAGE, _IMAGE, 3), dtype=torch.uint8, generator=generator)
    return images.to(device), torch.randperm(_CLASSES, generator=generator)[:batch_size].to(device)


def plain_update(backbone: str, device: str) -> UpdateOn:
    """The yardstick: four passes in float32."""
    from benchmarks.speed.plain_step import PlainStep

    return PlainStep(backbone, classes=_CLASSES, device=device)


def our_update(backbone: str, batch_size: int, device: str, **settings: Any) -> UpdateOn:
    """One update of the training loop, without its logging; ``settings`` of ``TrainConfig``."""
    from model.training.config import TrainConfig
    from model.training.state import new_run
    from pipeline.spec import Preprocessing

    config = TrainConfig(backbone=backbone, batch_size=batch_size, views=_VIEWS, lr=1e-4, **settings)
    state = new_run(config, classes=_CLASSES, preprocessing=Preprocessing(), device=device)
    state.learner.train()

    def update(images: torch.Tensor, labels: torch.Tensor) -> None:
        loss, _ = state.learner(images, labels)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()

    return update


def _waited(update: Update, device: str) -> Update:
    """``update``, which returns when the device is done with it."""
    import torch

    def done() -> None:
        update()
        if device == "cuda":
            torch.cuda.synchronize()

    return done


def _flops(update: Update) -> int:
    """Floating-point operations of an update's convolutions and matrix products, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        update()
    return counter.get_total_flops()


def peak_share(card: str, flops: int, seconds: float) -> dict[str, str]:
    """The fact of how near the quickest step comes to what the card could do, if that is known."""
    if not any(name in card for name in ("H100", "H200")) or any(word in card for word in _ANOTHER_CARD):
        return {}
    return {"of the card's bf16 peak": f"{flops / seconds / _PEAK:.1%}"}


def _loader_waits(
    root: Path | None, folder: Path, backbone: str, batch_size: int, device: str, *, quick: bool
) -> list[float]:
    """Shares of the steps of a real training run, from shards, in which it waits for images; the first ones left out."""
    from benchmarks.speed.faces import PER_IDENTITY, build_tree, data_root, read_faces, write_vggface2
    from benchmarks.speed.timing import silence
    from model.training.config import TrainConfig
    from model.training.loop import train
    from model.training.runlog import METRICS, read_metrics
    from model.training.state import new_run
    from pipeline.load.loader import Loader
    from pipeline.spec import spec_of

    steps = _TRAINED // 3 if quick else _TRAINED
    tree, run = folder / "step-faces", folder / "step-run"
    config = TrainConfig(backbone=backbone, batch_size=batch_size, views=_VIEWS, lr=1e-4, steps=steps, log_every=1)
    with silence():
        faces = read_faces(data_root(root, folder, quick=quick), _FACES)
        write_vggface2(faces, tree, images=batch_size * PER_IDENTITY, grey=False)
        index = build_tree(tree, folder / "step-shards", workers=1)
        spec = spec_of(index.manifest)
        state = new_run(config, classes=index.manifest.identities, preprocessing=spec, device=device)
        views = [(view.low, view.high) for view in config.all_views]
        with Loader(index, batch_size=batch_size, views=views, mode=config.degrade, device=device) as batches:
            if train(batches, state, run) < steps:  # it takes Ctrl-C as a wish to end with a checkpoint
                raise KeyboardInterrupt
    return [row["loader_wait"] for row in read_metrics(run / METRICS)][_STARTING:]
