"""train: trains a network on a shard set."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import BENCHMARKS, read_benchmark
from commands.options import PATH, STORE_PATH, SizeText, check_local, data, folder, pick_device, staging
from commands.teacher import open_teacher, teacher_targets
from commands.train_options import benchmark_names, check_cache, check_evaluation, config_options, print_list
from shards.messages import counted, print_stderr

if TYPE_CHECKING:
    from torch import nn

    from benchmarks.scoring.protocols import Protocol
    from model.training.config import TrainConfig
    from model.training.evaluation import Evaluate
    from model.training.ranks import Ranks
    from model.training.start import Start
    from pipeline.load.loader import Loader
    from pipeline.spec import Preprocessing
    from shards.index import ShardIndex
    from shards.store import Store


@click.command(short_help="Train a deep Siamese network.")
@folder("--shards", "shards", store=True, help="Shard set to train on, or its URL in an object store.")
@click.option(
    "--out", type=STORE_PATH, help="Run folder, or URL of an object store. [default: $LRFR_DATA/runs/BACKBONE]"
)
@click.option(
    "--recipe",
    default="seed",
    metavar="NAME",
    help="Named settings to start from: seed (those of the reference), quick, modern; 'help' lists them.",
)
@click.option(
    "--config",
    "config_file",
    type=PATH,
    help="TOML file of settings, or config.json of a run, that override the recipe; options override both.",
)
@click.option("--print-config", is_flag=True, help="Print all settings as TOML and exit.")
@config_options
@click.option(
    "--resume",
    default="auto",
    metavar="auto|never|PATH",
    help="Checkpoint to continue from; auto: the newest in --out, if any.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Device to train on. [default: cuda if available]")
@folder("--cache-folder", "cache", "sets", help="Cache for the tars of a set in an object store, on a local disk.")
@click.option(
    "--cache-size",
    type=SizeText(),
    help="Size limit of the cache, such as 50G; the least recently used tars are deleted. [default: 90 % of what it"
    " holds and what is free]",
)
@click.option(
    "--loader-threads",
    type=click.IntRange(1, 1024),
    help="CPU threads of the DALI loader. [default: the cores, divided by the processes on the machine, at most 16]",
)
@click.option(
    "--eval",
    "benchmarks",
    callback=benchmark_names,
    metavar="NAME,NAME",
    help=f"Benchmarks to evaluate during training: {', '.join(BENCHMARKS)}, or a TOML file that describes your own."
    " [default: none]",
)
@folder("--eval-root", help="Folder of the benchmarks' data sets.")
@click.option("--allow-missing", is_flag=True, help="Evaluate without images that cannot be used.")
def train(
    shards: Path | Store,
    out: Path | Store | None,
    recipe: str,
    config_file: Path | None,
    print_config: bool,
    resume: str,
    device: str | None,
    cache_folder: Path,
    cache_size: int | None,
    loader_threads: int | None,
    benchmarks: list[str],
    eval_root: Path,
    allow_missing: bool,
    **settings: Any,
) -> None:
    """Train a deep Siamese network. Ctrl-C saves a checkpoint; the same command continues.

    Settings that are not given come from the recipe; --print-config prints all of them. Several processes: torchrun
    --nproc-per-node N cli.py train ...

    \b
    Examples:
      lrfr train --recipe quick --out runs/first
      lrfr train --views 128,8,12,16 --precision bf16 --eval lfw --best lfw/accuracy@8
      lrfr train --from runs/first/best.pt --shards shards-qmul --lr 0.01 --out runs/tuned
    """
    if print_list({**settings, "recipe": recipe}):
        return
    for option, path in (("--resume", resume), ("--from", settings["pretrained"]), ("--teacher", settings["teacher"])):
        if path is not None:
            check_local(path, option=option)
    from model.errors import explained_memory
    from model.formats.network import load_network
    from model.training.launch import local_device
    from model.training.ranks import open_ranks
    from model.training.recipes import as_toml, compose

    if settings["pretrained"] and settings["backbone"] is None:
        network = load_network(Path(settings["pretrained"]))
        network.check_trainable("trained further")
        settings["backbone"] = network.name
    config = compose(recipe, config_file, settings)
    if print_config:
        click.echo(as_toml(config), nl=False)
        return
    check_evaluation(benchmarks, config.best)
    check_cache(shards)
    protocols = [read_benchmark(name, eval_root) for name in benchmarks]
    if protocols and config.best is None:
        config = compose(recipe, config_file, {**settings, "best": headline_metric(protocols[0])})
    device = local_device(pick_device(device))
    run = out or data("runs", config.backbone.name)()
    with open_ranks(device) as ranks, explained_memory(config.less_memory):
        with opened_run(run, ranks, config.keep) as folder, opened_set(shards, cache_folder, cache_size) as index:
            start, steps = run_training(
                config, index, folder, ranks, resume, device, loader_threads, protocols, allow_missing
            )
        if ranks.first:
            print_stderr(end_line(run, start, steps, config.steps, resume))
        if steps < config.steps:
            sys.exit(130)


def end_line(run: Path | Store, start: int, steps: int, wanted: int, resume: str) -> str:
    """How a run ended that began after ``start`` updates and has had ``steps`` of those ``wanted``; ``resume``: the option."""
    if start >= wanted:
        return f"nothing to do: {run} has finished, with {counted(steps, 'step')}; a higher --steps continues it"
    if steps >= wanted:
        return f"finished: trained {counted(steps, 'step')}: {run}"
    command = "the same command without --resume never" if resume == "never" else "the same command"
    kept = f"saved in {run}: run {command} to continue" if steps else "nothing is lost"
    return f"interrupted after step {steps}; {kept}"


def opened_run(run: Path | Store, ranks: Ranks, keep: int) -> contextlib.AbstractContextManager[Path]:
    """The run folder on this machine; that of a store is uploaded."""
    if isinstance(run, Path):
        return contextlib.nullcontext(run)
    from model.training.stored_run import StoredRun

    return StoredRun(run, staging(run), keep=keep).opened(ranks)


def opened_set(
    shards: Path | Store, cache_folder: Path, cache_size: int | None
) -> contextlib.AbstractContextManager[ShardIndex]:
    """The shard set; that of a store is read through a cache on this machine."""
    if isinstance(shards, Path):
        from shards.index import ShardIndex

        return contextlib.nullcontext(ShardIndex(shards))
    from shards.cache import CachedSet

    return CachedSet(shards, folder=cache_folder, size=cache_size)


def headline_metric(protocol: Protocol) -> str:
    """The name of a benchmark's headline metric, such as ``lfw/accuracy@8``."""
    return f"{protocol.name}/{protocol.main}"


def run_training(
    config: TrainConfig,
    index: ShardIndex,
    run: Path,
    ranks: Ranks,
    resume: str,
    device: str,
    threads: int | None,
    protocols: list[Protocol],
    allow_missing: bool,
) -> tuple[int, int]:
    """Opens run and loader, and trains; returns the number of updates before and after."""
    from model.training.evaluation import is_evaluated
    from model.training.loop import train as train_loop
    from model.training.start import start_run
    from pipeline.spec import spec_of

    teacher = open_teacher(config, run, ranks)
    start = start_run(
        config,
        run=run,
        resume=resume,
        classes=index.manifest.identities,
        shards_spec=spec_of(index.manifest),
        device=device,
        ranks=ranks,
        teacher=teacher,
    )
    if start.step >= config.steps and ranks.collect(lambda: not protocols or is_evaluated(run, start.step))[0]:
        return start.step, start.step  # nothing is written: the folder may be read-only
    loader = open_loader(config, index, start, device, threads)
    targets = None
    if teacher and config.losses.embedding_terms and start.step < config.steps:
        targets = teacher_targets(teacher, index, ranks, device)
    if teacher and teacher.network and not config.losses.attention:
        teacher.network.backbone.to("cpu")  # leaves the GPU's memory to the student
    if ranks.first and start.step < config.steps:
        print_stderr(start_line(start, index, device))
    spec = start.state.learner.preprocessing
    evaluate = evaluation(protocols, spec, device, allow_missing) if protocols else None
    with loader as batches:
        shown = [headline_metric(protocol) for protocol in protocols]
        steps = train_loop(batches, start.state, run, start=start.step, evaluate=evaluate, shown=shown, targets=targets)
        return start.step, steps


def open_loader(config: TrainConfig, index: ShardIndex, start: Start, device: str, threads: int | None) -> Loader:
    """The loader of this process, which continues where the run stopped."""
    from pipeline.load.loader import Loader

    ranks = start.state.ranks
    return Loader(
        index,
        batch_size=config.batch_size,
        views=[view.for_loader for view in config.all_views],
        seed=config.seed,
        mode=config.degrade,
        device=device,
        threads=threads,
        rank=ranks.rank,
        world_size=ranks.size,
        resume=start.loader_state,
        originals=config.losses.attention is not None,
        window=config.shard_window,
    )


def start_line(start: Start, index: ShardIndex, device: str) -> str:
    """What is trained, on what and how long."""
    import torch

    learner, ranks = start.state.learner, start.state.ranks
    config = learner.config
    parameters = sum(weight.numel() for weight in learner.backbone.parameters())
    where = f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device
    where += f" in {ranks.size} processes" if ranks.size > 1 else ""
    views = ",".join(map(str, config.views))
    in_epoch = len(index.labels) if config.shard_window is None else len(index) / len(config.all_views)
    epochs = f"{config.steps * config.batch_size / in_epoch:.3g}"
    return (
        f"{config.backbone}, {parameters / 1e6:.1f} M parameters, {config.precision} on {where};"
        f" {counted(len(index), 'image')} of {counted(len(index.labels), 'identity')};"
        f" steps {start.step + 1:,} to {config.steps:,} of {counted(config.batch_size, 'identity')} at {views} px,"
        f" {epochs} epoch{'' if epochs == '1' else 's'}"
    )


def evaluation(protocols: list[Protocol], spec: Preprocessing, device: str, allow_missing: bool) -> Evaluate:
    """The evaluation callback of the training loop."""
    from benchmarks.engine.runner import Engine, run
    from benchmarks.scoring.samples import lower_is_better
    from model.embedder import Embedder
    from pipeline.prepare import check_supported

    check_supported(spec, "the shards' manifest")

    def evaluate(backbone: nn.Module) -> dict[str, float]:
        embed = Embedder(backbone, device=device, mean=spec.mean, std=spec.std, color=spec.color)
        engine = Engine(embed=embed, spec=spec)
        results = [
            run(protocol, engine, checkpoint={}, allow_missing=allow_missing, intervals=False) for protocol in protocols
        ]
        return {
            f"{result.benchmark}/{name}": value
            for result in results
            for name, value in result.metrics.items()
            if not lower_is_better(name)  # the best checkpoint has the highest value
        }

    return evaluate
