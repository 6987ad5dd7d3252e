"""Training: against the CPU, resumed, in every precision; and at full speed, extrapolated to the reference's run."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import signal
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from benchmarks.speed import VGGFACE2_IDENTITIES
from benchmarks.speed.step import VIEWS
from benchmarks.speed.timing import cores
from model.backbones import EMBEDDING_SIZE
from model.formats.checkpoint import checkpoints, read_checkpoint
from model.heads import Head
from model.losses.functional import cross_entropy
from model.sharding import Group
from model.training.config import TrainConfig
from model.training.loop import train
from model.training.ranks import Ranks
from model.training.recipes import RECIPES, compose
from model.training.runlog import METRICS, read_metrics
from model.training.start import start_run
from model.training.state import new_run
from pipeline.load.loader import Batch, Loader
from pipeline.spec import spec_of
from tools.gpu.parts import Work

REFERENCE_STEPS, REFERENCE_IDENTITIES = 100_000, 128  # updates; of a batch
TRAINING_HOURS, LOADER_WAIT = 1.5, 0.03  # at most, on an H100
_TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2, "fp16": 1e-2}  # of the first loss, relative
_HEAD_IMAGES, _HEAD_CLASSES = 64, 1000
_WARM_UP_ROWS = 3  # of the log, which fill queues and choose algorithms


def recipes(work: Work) -> None:
    """Every recipe: its first loss on the device and on the CPU, and whether it learns."""
    identities, steps = (2, 6) if work.quick else (16, 20)
    for recipe in RECIPES:
        with work.report.attempt(f"recipe {recipe}"):
            config = compose(recipe, None, {"batch_size": identities, "steps": steps, "log_every": 1} | _small(work))
            torch.backends.cudnn.allow_tf32 = False  # TF32 would hide an error
            # what a device fits or draws for itself, initial weights and masks, is its own
            same = TrainConfig(**{**config.to_dict(), **({"init": "pytorch"} if config.init == "data" else {})})
            given = _cpu_batches(work, same, 2)
            expected = _losses(work, same, given, f"{recipe}-cpu", "cpu", steps=2, dropout=False)
            found = _losses(work, same, given, f"{recipe}-same", work.device, steps=2, dropout=False)
            torch.backends.cudnn.allow_tf32 = True
            _compare(work, f"{recipe} ({config.backbone}, {config.precision})", found, expected, config.precision)
            with _loader(work, config, work.device) as batches:
                again = itertools.cycle(list(itertools.islice(batches, 2)))
                losses = _losses(work, config, again, recipe, work.device, steps=steps)
            third = max(steps // 3, 1)
            start, end = statistics.mean(losses[:third]), statistics.mean(losses[-third:])
            text = f"loss {start:.3f} -> {end:.3f} in {len(losses)} steps of two batches in turn"
            work.report.check(f"{recipe} learns", all(map(math.isfinite, losses)) and (end < start or work.quick), text)


def _compare(work: Work, name: str, found: list[float], expected: list[float], precision: str) -> None:
    apart = [abs(one / other - 1) for one, other in zip(found, expected, strict=True)]
    text = f"loss {found[0]:.5f}, on the CPU {expected[0]:.5f}; apart by {apart[0]:.1e}, after an update by {apart[-1]:.1e}"
    work.report.check(name, apart[0] <= _TOLERANCE[precision], text)


def _small(work: Work) -> dict[str, Any]:
    """Settings of a quick run: another network computes for minutes on a CPU."""
    return {"backbone": "spherenet4", "init": "pytorch"} if work.quick else {}


def _loader(work: Work, config: TrainConfig, device: str, resume: dict[str, Any] | None = None) -> Loader:
    views = [view.for_loader for view in config.all_views]
    return Loader(
        work.index,
        batch_size=config.batch_size,
        views=views,
        seed=config.seed,
        mode=config.degrade,
        device=device,
        threads=cores(),
        resume=resume,
    )


def _cpu_batches(work: Work, config: TrainConfig, count: int) -> list[Batch]:
    with _loader(work, config, "cpu") as batches:
        return list(itertools.islice(batches, count))


def _losses(
    work: Work,
    config: TrainConfig,
    batches: Iterable[Batch],
    run: str,
    device: str,
    *,
    steps: int,
    ranks: Ranks | None = None,
    dropout: bool = True,
) -> list[float]:
    """Trains a new run on the batches; returns the loss of each step."""
    config = TrainConfig(**{**config.to_dict(), "steps": steps, "log_every": 1})
    state = new_run(
        config, classes=VGGFACE2_IDENTITIES, preprocessing=spec_of(work.index.manifest), device=device, ranks=ranks
    )
    for layer in state.learner.modules():
        if isinstance(layer, nn.Dropout) and not dropout:
            layer.p = 0.0
    there = (dataclasses.replace(one, images=one.images.to(device), labels=one.labels.to(device)) for one in batches)
    train(there, state, work.scratch / run)
    return [row["loss"] for row in read_metrics(work.scratch / run / METRICS)]


def resume(work: Work) -> None:
    """A run that is stopped and continued against one that is not: bit for bit if the kernels are deterministic."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # CUDA reads it when it starts
    config = TrainConfig(
        **{"batch_size": 2 if work.quick else 16, "steps": 6, "log_every": 1, "lr": 0.01} | _small(work)
    )
    for deterministic in (True, False):
        kernels = "deterministic kernels" if deterministic else "default kernels"
        with work.report.attempt(kernels):
            torch.use_deterministic_algorithms(deterministic)
            whole, stopped = (work.scratch / f"{name}-{deterministic}" for name in ("whole", "stopped"))
            _continue(work, config, whole, stop_after=0)
            _continue(work, config, stopped, stop_after=3)
            _continue(work, config, stopped, stop_after=0)
            first, second = (_tensors(read_checkpoint(checkpoints(run)[-1])) for run in (whole, stopped))
            apart = [float((first[name].double() - second[name].double()).abs().max()) for name in first]
            text = f"{sum(one > 0 for one in apart)} of {len(apart)} tensors differ, by {max(apart):.1e} at most"
            work.report.check(kernels, first.keys() == second.keys() and (max(apart) == 0 or not deterministic), text)
    torch.use_deterministic_algorithms(False)


def _continue(work: Work, config: TrainConfig, run: Path, *, stop_after: int) -> None:
    """Starts or continues a run, as ``train`` does; stops it by a signal after some steps, or not."""
    spec = spec_of(work.index.manifest)
    start = start_run(
        config,
        run=run,
        resume="auto",
        classes=VGGFACE2_IDENTITIES,
        shards_spec=spec,
        device=work.device,
        ranks=Ranks(),
    )
    with _loader(work, config, work.device, start.loader_state) as batches:
        done = train(_stopping(batches, steps=stop_after), start.state, run, start=start.step)
    assert done == (stop_after or config.steps), f"{done} steps"


def _stopping(batches: Iterable[Batch], *, steps: int = 0, seconds: float = math.inf) -> Iterator[Batch]:
    """The batches; asks the process to stop, as a batch system does, with batch number ``steps``, or when time is over."""
    end, asked = time.monotonic() + seconds, False
    for number, one in enumerate(batches, 1):
        if not asked and (number == steps or time.monotonic() > end):
            asked = True
            os.kill(os.getpid(), signal.SIGTERM)
        yield one


def _tensors(content: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by their place in it."""
    if torch.is_tensor(content):
        return {prefix: content}
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return {name: tensor for key, value in items for name, tensor in _tensors(value, f"{prefix}/{key}").items()}


def precisions(work: Work) -> None:
    """What must not change the first loss by more than rounding."""
    base = {"batch_size": 4 if work.quick else 16, "lr": 0.01} | _small(work)
    batch = itertools.repeat(_cpu_batches(work, TrainConfig(**base), 1)[0])
    torch.backends.cudnn.allow_tf32 = False
    expected, *_ = _losses(work, TrainConfig(**base), batch, "fp32", work.device, steps=1)
    torch.backends.cudnn.allow_tf32 = True
    others: dict[str, tuple[int, dict[str, Any]]] = {  # steps and settings
        "TF32": (3, {}),
        "bf16": (3, {"precision": "bf16"}),
        "fp16": (
            8 if work.quick else 20,
            {"precision": "fp16"},
        ),  # the loss scale falls first, and steps without an update are not logged
        "accumulate": (3, {"accumulate": 2}),
        "activation checkpointing": (3, {"activation_checkpointing": True}),
        "average of the weights": (3, {"ema": 0.99}),
    }
    for name, (steps, options) in others.items():
        with work.report.attempt(name):
            config = TrainConfig(**{**base, **options})
            losses = _losses(work, config, batch, name, work.device, steps=steps)
            apart = abs(losses[0] / expected - 1)
            text = f"first loss {losses[0]:.5f}, {apart:.1e} from fp32; last {losses[-1]:.5f}, {len(losses)} of {steps} steps"
            good = apart <= _TOLERANCE[config.precision] and all(map(math.isfinite, losses))
            work.report.check(name, good, text)


def nccl(work: Work) -> None:
    """One process as a group: gradients and features go through NCCL, and what the ranks of a sharded head exchange."""
    config = TrainConfig(**{"batch_size": 2 if work.quick else 16, "lr": 0.01} | _small(work))
    given = _cpu_batches(work, config, 3)
    expected = _losses(work, config, given, "alone", work.device, steps=3)
    backend, store = ("nccl" if work.device == "cuda" else "gloo"), work.scratch / "store"
    distributed.init_process_group(backend, init_method=f"file://{store}", rank=0, world_size=1)
    ranks = Ranks()
    ranks.group = distributed.group.WORLD
    found = _losses(work, config, given, "group", work.device, steps=3, ranks=ranks)
    apart = max(abs(one / other - 1) for one, other in zip(found, expected, strict=True))
    work.report.check(f"{backend}, one rank", apart < _TOLERANCE["fp32"], f"3 losses, apart by {apart:.1e} at most")
    pairs = zip(_head_results(work, config, ranks.group), _head_results(work, config, None), strict=True)
    apart = max(float((one - other).abs().max()) for one, other in pairs)
    work.report.check(f"{backend}, classes of a head", apart < _TOLERANCE["fp32"], f"apart by {apart:.1e} at most")
    distributed.destroy_process_group()


def _head_results(work: Work, config: TrainConfig, group: Group | None) -> list[torch.Tensor]:
    """Losses, gradients and rows of a head whose classes are those of a group."""
    torch.manual_seed(0)  # a training of one rank takes a head without a group
    head = Head(config.head, features=EMBEDDING_SIZE, classes=_HEAD_CLASSES, group=group).to(work.device)
    features = torch.randn(_HEAD_IMAGES, EMBEDDING_SIZE).to(work.device).requires_grad_()
    losses = cross_entropy(head(features, torch.arange(_HEAD_IMAGES, device=work.device)))
    gradients = torch.autograd.grad(losses.sum(), [features, head.weight])
    return [losses.detach(), *gradients, head.full_state()["weight"].to(work.device)]


def train_on(work: Work) -> None:
    """The reference's training in bf16, with data, log and checkpoints, for some time."""
    config = reference_config(work)
    images, waits, steps = measure_training(work, config, work.settings.train_s, "train")
    hours = REFERENCE_STEPS * REFERENCE_IDENTITIES * VIEWS / images / 3600
    report = work.report
    report.write(
        "training, with data", f"{images:,.0f} images/s over {steps:,} steps of {config.batch_size} identities"
    )
    report.target(
        "the reference's run", hours, most=TRAINING_HOURS, text=f"{hours:.2f} h of {TRAINING_HOURS} h, extrapolated"
    )
    report.target("loader wait", waits, most=LOADER_WAIT, text=f"{waits:.1%} of the time, of {LOADER_WAIT:.0%}")
    if work.device == "cuda":
        report.write("peak memory of PyTorch", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def reference_config(work: Work) -> TrainConfig:
    """The recipe ``seed`` in bf16, with a lower rate: a few faces would diverge."""
    identities = min(2 if work.quick else REFERENCE_IDENTITIES, len(work.index.labels))
    settings = {"batch_size": identities, "precision": "bf16", "lr": 0.01, "steps": REFERENCE_STEPS}
    return TrainConfig(**settings | ({"log_every": 1} if work.quick else {}) | _small(work))


def measure_training(work: Work, config: TrainConfig, seconds: float, run: str) -> tuple[float, float, int]:
    """Images a second, the share of time that waits for the loader, and the steps that count."""
    state = new_run(config, classes=VGGFACE2_IDENTITIES, preprocessing=spec_of(work.index.manifest), device=work.device)
    with _loader(work, config, work.device) as batches:
        train(_stopping(batches, seconds=seconds), state, work.scratch / run)
    rows = read_metrics(work.scratch / run / METRICS)
    assert rows, f"no step in {seconds} s: raise --train-seconds"
    first = min(_WARM_UP_ROWS, len(rows) - 1)
    counted = rows[first:]
    # every row is of as many steps; one that a signal ended is not among them
    images = statistics.harmonic_mean([row["images_per_s"] for row in counted])
    waits = sum(row["loader_wait"] / row["images_per_s"] for row in counted) * images / len(counted)
    return images, waits, int(rows[-1]["step"] - rows[first - 1]["step"] if first else rows[-1]["step"])
