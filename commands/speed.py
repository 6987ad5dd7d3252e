"""bench speed: what a stage costs, against a plain way to do it, in one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from commands.options import pick_device

_CLASSES, _IMAGE, _VIEWS = 8631, 128, "128,8,12,16"  # identities of VGGFace2's training set


@click.group()
def speed() -> None:
    """Time a stage against a plain way to do it."""


@speed.command()
@click.option(
    "--backbone",
    default="spherenet20",
    show_default=True,
    metavar="NAME",
    help="Network; train --backbone help lists them.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    help="Identities in a step, each with an image a view.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Steps that are timed, of each kind in turn.",
)
@click.option("--compile/--no-compile", help="Time torch.compile, too.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the times of every round as JSON.")
def step(
    backbone: str, batch_size: int, rounds: int, compile: bool, device: str | None, json_file: Path | None
) -> None:
    """The training step: four passes in fp32 as the paper's text has it, against ours."""
    import torch

    from benchmarks.document import as_text
    from benchmarks.speed import compare_times, write_timing
    from model.plain_step import PlainStep

    device = pick_device(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, batch_size, _IMAGE, _IMAGE, 3), dtype=torch.uint8, generator=generator).to(
        device
    )
    labels = torch.randperm(_CLASSES, generator=generator)[:batch_size].to(device)
    plain = PlainStep(backbone, classes=_CLASSES, device=device)
    ours: dict[str, dict[str, Any]] = {"ours, fp32": {"precision": "fp32"}, "ours, bf16": {"precision": "bf16"}}
    if compile:
        ours["ours, bf16, compiled"] = {"precision": "bf16", "compile": True}
    contenders = {"plain, fp32": _waited(lambda: plain(images, labels), device)}
    for name, settings in ours.items():
        contenders[name] = _waited(_our_step(backbone, batch_size, device, settings, images, labels), device)
    timing = compare_times(
        f"step, {backbone}, {batch_size} identities",
        contenders,
        unit="images",
        amount=4 * batch_size,
        rounds=rounds,
        warm_up=2,
        facts={"torch": torch.__version__, "device": torch.cuda.get_device_name() if device == "cuda" else "CPU"},
    )
    click.echo(as_text(timing.grid()))
    click.echo("\n" + ", ".join(f"{name}: {value}" for name, value in timing.machine.items()))
    if json_file:
        write_timing(timing, json_file)


def _our_step(
    backbone: str, batch_size: int, device: str, settings: dict[str, Any], images: Any, labels: Any
) -> Callable[[], None]:
    """One update of the training loop, without its logging."""
    from model.config import TrainConfig
    from model.state import new_run
    from shards.schema import Preprocessing

    config = TrainConfig(backbone=backbone, batch_size=batch_size, views=_VIEWS, lr=1e-4, **settings)
    state = new_run(config, classes=_CLASSES, preprocessing=Preprocessing().to_dict(), device=device)
    state.learner.train()

    def update() -> None:
        loss, _ = state.learner(images, labels)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()

    return update


def _waited(call: Callable[[], None], device: str) -> Callable[[], None]:
    """``call``, which returns when the device is done with it."""
    import torch

    def done() -> None:
        call()
        if device == "cuda":
            torch.cuda.synchronize()

    return done
