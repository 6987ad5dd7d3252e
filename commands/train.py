"""train: from shards to a network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import BENCHMARKS, read_benchmark
from commands.options import allow_missing_option, data, folder, pick_device


def benchmark_names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    """``lfw,qmul`` as a list of known names, each once."""
    names = list(dict.fromkeys(name.strip() for name in (value or "").split(",") if name.strip()))
    for name in names:
        if name not in BENCHMARKS:
            raise click.BadParameter(f"{name!r} is not a benchmark; choose from {', '.join(BENCHMARKS)}")
    return names


@click.command(short_help="Train a deep Siamese network.")
@folder("--shards", "shards", help="Shard set to train on.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder. [default: $LRFR_DATA/runs/BACKBONE]")
@click.option("--backbone", default="spherenet20", show_default=True, help="spherenet4, 10, 20, 36 or 64.")
@click.option(
    "--init",
    type=click.Choice(["pytorch", "data"]),
    default="pytorch",
    show_default=True,
    help="First weights: PyTorch's as the reference, or fitted to the first batch, which learns sooner.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Identities in a batch, each with four images.",
)
@click.option("--steps", type=click.IntRange(min=1), default=100_000, show_default=True, help="Updates in all.")
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="Learning rate; x0.1 after 40, 60 and 80 % of the steps.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 32) - 1),
    default=0,
    show_default=True,
    help="Of the weights and of the batches.",
)
@click.option(
    "--degrade",
    type=click.Choice(["fast", "exact"]),
    default="fast",
    show_default=True,
    help="exact: Pillow bit for bit, slower on a CPU.",
)
@click.option(
    "--log-every", type=click.IntRange(min=1), help="Steps between log lines. [default: 1 up to 100 steps, else 20]"
)
@click.option(
    "--save-every", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps between checkpoints."
)
@click.option("--keep", type=click.IntRange(min=1), default=3, show_default=True, help="Checkpoints to keep.")
@click.option(
    "--resume", default="auto", show_default=True, metavar="auto|never|PATH", help="auto: go on with what --out holds."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
@click.option(
    "--loader-threads", type=click.IntRange(min=1), default=2, show_default=True, help="CPU threads of the DALI loader."
)
@click.option(
    "--eval",
    "evaluated",
    callback=benchmark_names,
    metavar="NAME,NAME",
    help=f"Benchmarks to score while training: {', '.join(BENCHMARKS)}. [default: none]",
)
@folder("--eval-root", help="The folder with their data sets.")
@click.option(
    "--eval-every",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Steps between evaluations; there is one before the first step and one after the last.",
)
@click.option(
    "--best",
    metavar="NAME/FIGURE",
    help="Keep best.pt, the checkpoint with the highest such figure. [default: the first benchmark's main one, such as lfw/accuracy@8]",
)
@allow_missing_option("Evaluate without images that cannot be used.")
def train(
    shards: Path,
    out: Path | None,
    resume: str,
    device: str | None,
    loader_threads: int,
    evaluated: list[str],
    eval_root: Path,
    best: str | None,
    allow_missing: bool,
    **options: Any,
) -> None:
    """Train a deep Siamese network; Ctrl-C saves, and the same command goes on."""
    from model.checkpoint import read_checkpoint
    from model.config import TrainConfig
    from model.train import find_resume, new_run, restore
    from model.train import train as run_training
    from pipeline.loader import Loader
    from shards.index import ShardIndex

    device = pick_device(device)
    protocols = [read_benchmark(name, eval_root) for name in evaluated]
    config = TrainConfig(best=best or next((f"{one.name}/{one.main}" for one in protocols), None), **options)
    run = out or data("runs", config.backbone)()
    index = ShardIndex(shards)
    start_from = find_resume(run, resume)
    content = read_checkpoint(start_from) if start_from else None
    spec = index.manifest.preprocessing.to_dict()
    learner, optimiser = new_run(config, classes=index.manifest.identities, preprocessing=spec, device=device)
    start = restore(content, start_from, learner, optimiser) if content and start_from else 0
    loader = Loader(
        index,
        batch_size=config.batch_size,
        views=config.views,
        seed=config.seed,
        mode=config.degrade,
        device=device,
        threads=loader_threads,
        resume=content["loader_state"] if content else None,
    )
    evaluate = evaluation(protocols, spec, device, allow_missing) if protocols else None
    with loader as batches:
        done = run_training(batches, learner, optimiser, run, start=start, evaluate=evaluate)
    if done < config.steps:
        click.echo(f"interrupted after step {done}; saved in {run}: run the same command to go on", err=True)
        sys.exit(130)
    click.echo(f"trained {done} steps: {run}", err=True)


def evaluation(protocols: list[Any], stated: dict[str, Any], device: str, allow_missing: bool) -> Callable[[Any], Any]:
    """What training calls now and then: a backbone -> figures such as ``lfw/accuracy@8``."""
    from benchmarks.prepare import follow
    from benchmarks.runner import Engine, run
    from model.embed import Embedder

    spec = follow(stated, {"path": "the shards' manifest"})

    def evaluate(backbone: Any) -> dict[str, float]:
        engine = Engine(embed=Embedder(backbone, device=device, mean=spec.mean, std=spec.std), spec=spec)
        results = [
            run(protocol, engine, checkpoint={}, allow_missing=allow_missing, intervals=False) for protocol in protocols
        ]
        return {f"{one.benchmark}/{name}": value for one in results for name, value in one.metrics.items()}

    return evaluate
