"""train: from shards to a network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import BENCHMARKS, read_benchmark
from commands.options import allow_missing_option, data, folder, pick_device
from commands.train_options import config_options, print_list

if TYPE_CHECKING:
    from model.training.config import TrainConfig
    from model.training.ranks import Ranks
    from pipeline.spec import Preprocessing


def benchmark_names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    """``lfw,qmul`` as a list of known names, each once."""
    names = list(dict.fromkeys(name.strip() for name in (value or "").split(",") if name.strip()))
    if value is not None and not names:
        raise click.BadParameter(f"{value!r} names no benchmark; choose from {', '.join(BENCHMARKS)}")
    for name in names:
        if name not in BENCHMARKS:
            raise click.BadParameter(f"{name!r} is not a benchmark; choose from {', '.join(BENCHMARKS)}")
    return names


@click.command(short_help="Train a deep Siamese network.")
@folder("--shards", "shards", help="Shard set to train on.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder. [default: $LRFR_DATA/runs/BACKBONE]")
@config_options
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
    "--best",
    metavar="NAME/FIGURE",
    help="Keep best.pt, the checkpoint with the highest such figure. [default: the first benchmark's main one, such as lfw/accuracy@8]",
)
@allow_missing_option("Evaluate without images that cannot be used.")
def train(
    shards: Path,
    out: Path | None,
    recipe: str,
    config_file: Path | None,
    print_config: bool,
    resume: str,
    device: str | None,
    loader_threads: int,
    evaluated: list[str],
    eval_root: Path,
    best: str | None,
    allow_missing: bool,
    **options: Any,
) -> None:
    """Train a deep Siamese network; Ctrl-C saves, and the same command goes on.

    Settings not given are the recipe's. Several processes: torchrun --nproc-per-node N cli.py train ...
    """
    if print_list(options):
        return
    from model.training.ranks import local_device, open_ranks
    from model.training.recipes import as_toml, compose

    if options["pretrained"] and options["backbone"] is None:
        options["backbone"] = backbone_of(Path(options["pretrained"]))
    if print_config:
        click.echo(as_toml(compose(recipe, config_file, {**options, "best": best})), nl=False)
        return
    check_evaluation(evaluated, best)
    protocols = [read_benchmark(name, eval_root) for name in evaluated]
    best = best or next((f"{one.name}/{one.main}" for one in protocols), None)
    config = compose(recipe, config_file, {**options, "best": best})
    device = local_device(pick_device(device))
    run = out or data("runs", config.chosen_backbone.name)()
    with open_ranks(device) as ranks:
        done = run_training(config, shards, run, ranks, resume, device, loader_threads, protocols, allow_missing)
        if done < config.steps:
            if ranks.first:
                click.echo(f"interrupted after step {done}; saved in {run}: run the same command to go on", err=True)
            sys.exit(130)
        if ranks.first:
            click.echo(f"trained {done} steps: {run}", err=True)


def check_evaluation(evaluated: list[str], best: str | None) -> None:
    """Raises: UsageError: options about an evaluation that is not asked for, or a best by what is not evaluated."""
    source = click.get_current_context().get_parameter_source
    given = click.core.ParameterSource.COMMANDLINE
    for name, flag in {
        "eval_every": "--eval-every",
        "eval_root": "--eval-root",
        "allow_missing": "--allow-missing",
    }.items():
        if not evaluated and source(name) == given:
            raise click.UsageError(f"{flag} is about evaluation; name benchmarks with --eval, or leave it out")
    if best is not None and best.partition("/")[0] not in evaluated:
        names = ", ".join(evaluated) or "nothing"
        raise click.UsageError(
            f"--best {best}: --eval names {names}; expected one of its figures, such as lfw/accuracy@8"
        )


def backbone_of(checkpoint: Path) -> str:
    """Which backbone a checkpoint holds."""
    from model.formats.network import load_network

    return load_network(checkpoint).name


def run_training(
    config: TrainConfig,
    shards: Path,
    run: Path,
    ranks: Ranks,
    resume: str,
    device: str,
    threads: int,
    protocols: list[Any],
    allow_missing: bool,
) -> int:
    """Opens shards, checkpoint and loader, and trains; the number of updates done in all."""
    from model.formats.checkpoint import read_checkpoint
    from model.training.loop import find_resume
    from model.training.loop import train as train_on
    from model.training.state import new_run
    from pipeline.load.loader import Loader
    from pipeline.spec import spec_of
    from shards.index import ShardIndex

    index = ShardIndex(shards)
    images = spec_of(index.manifest)
    found = find_resume(run, resume)
    content = read_checkpoint(found) if found else None
    spec, weights = prepared(config, images, content)
    state = new_run(
        config,
        classes=index.manifest.identities,
        preprocessing=spec,
        trained_on=images,
        device=device,
        ranks=ranks,
        weights=weights,
    )
    start = state.restore(content, found) if content and found else 0
    evaluate = evaluation(protocols, spec, device, allow_missing) if protocols else None
    loader = Loader(
        index,
        batch_size=config.batch_size,
        views=[(view.low, view.high) for view in config.all_views],
        seed=config.seed,
        mode=config.degrade,
        device=device,
        threads=threads,
        rank=ranks.rank,
        world_size=ranks.size,
        resume=content["loader_state"] if content else None,
    )
    with loader as batches:
        shown = [f"{one.name}/{one.main}" for one in protocols]
        return train_on(batches, state, run, start=start, evaluate=evaluate, shown=shown)


def prepared(config: TrainConfig, images: Preprocessing, content: dict[str, Any] | None) -> tuple[Preprocessing, Any]:
    """How images for the network are prepared, and the weights it starts from, if any.

    Args:
        images: spec of the shards.  content: checkpoint of this run to go on from; None for a new run.
    """
    from model.formats.checkpoint import is_ours
    from model.formats.network import load_network
    from pipeline.spec import Preprocessing

    if content is not None:
        return (Preprocessing.from_dict(content["preprocessing"]) if is_ours(content) else images), None
    if config.pretrained is None:
        return images, None
    network = load_network(Path(config.pretrained))
    return network.spec.fine_tuned_on(images), network.backbone.state_dict()


def evaluation(protocols: list[Any], spec: Preprocessing, device: str, allow_missing: bool) -> Callable[[Any], Any]:
    """What training calls now and then: a backbone -> figures such as ``lfw/accuracy@8``."""
    from benchmarks.engine.runner import Engine, run
    from model.embedder import Embedder
    from pipeline.prepare import check_supported

    check_supported(spec, "the shards' manifest")

    def evaluate(backbone: Any) -> dict[str, float]:
        engine = Engine(embed=Embedder(backbone, device=device, mean=spec.mean, std=spec.std), spec=spec)
        results = [
            run(protocol, engine, checkpoint={}, allow_missing=allow_missing, intervals=False) for protocol in protocols
        ]
        return {f"{one.benchmark}/{name}": value for one in results for name, value in one.metrics.items()}

    return evaluate
