"""lrfr: low-resolution face recognition, from VGGFace2 to a score. Each command imports what it needs when it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import BENCHMARKS, Benchmark

_OURS = ("shards", "pipeline", "model", "benchmarks")


def data(*parts: str) -> Any:
    """A default path under ``$LRFR_DATA`` (default ``data``), read when the command runs."""
    return lambda: Path(os.environ.get("LRFR_DATA", "data"), *parts)


def folder(name: str, *parts: str, help: str) -> Any:
    """An option that takes a folder, by default one under ``$LRFR_DATA``."""
    return click.option(
        name,
        type=click.Path(path_type=Path),
        default=data(*parts),
        show_default="/".join(("$LRFR_DATA", *parts)),
        help=help,
    )


class Commands(click.Group):
    """Shows expected failures as one line, exit 1; interruption exits 130; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, _interrupt)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted; what was finished is kept: run the same command to go on", err=True)
            sys.exit(130)
        except BrokenPipeError:
            raise
        except OSError as error:
            what = error.strerror or str(error)
            _fail(
                f"{error.filename}: {what}"
                if error.filename
                else f"{what}; free it, then run the same command to go on"
            )
        except Exception as error:
            if type(error).__module__.split(".")[0] not in _OURS:
                raise
            _fail(str(error))


def _fail(line: str) -> None:
    click.echo(f"Error: {line}", err=True)
    sys.exit(1)


def _interrupt(number: int, frame: Any) -> None:
    """Raises KeyboardInterrupt, but never amid an import: half-loaded extension modules swallow or mangle it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # SIGALRM comes back here
            return
        frame = frame.f_back
    raise KeyboardInterrupt


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lrfr")
def main() -> None:
    """Low-resolution face recognition: VGGFace2 -> shards -> DALI -> a Siamese network -> a score.

    Paths default to folders under $LRFR_DATA (default: data).
    """


@main.command("demo-data")
@folder("--out", help="Where the data sets go.")
@click.option(
    "--identities",
    type=click.IntRange(min=2),
    default=64,
    show_default=True,
    help="People to train on; half as many more to test on.",
)
@click.option("--images", type=click.IntRange(min=2), default=12, show_default=True, help="Images of each.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same faces.")
def demo_data(out: Path, identities: int, images: int, seed: int) -> None:
    """Paint generated faces, laid out as the public data sets."""
    from pipeline.synthetic import write_demo_data

    write_demo_data(out, identities=identities, images=images, seed=seed)


@main.command("build-shards")
@click.option(
    "--source",
    type=click.Choice(["vggface2", "folder"]),
    default="vggface2",
    show_default=True,
    help="Layout of --root.",
)
@folder("--root", "VGGFace2", help="Folder with the images.")
@click.option(
    "--landmarks",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Landmark CSV; may be given several times. [default: found under --root]",
)
@folder("--out", "shards", help="Folder for the shards.")
@click.option(
    "--template",
    type=click.Choice(["seed", "arcface"]),
    default="seed",
    show_default=True,
    help="Where the five points go: seed as the reference, arcface centred.",
)
@click.option(
    "--min-images",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Leave out identities with fewer images.",
)
@click.option(
    "--exclude", type=click.Path(path_type=Path), help="File of identities or identity/image to leave out, one a line."
)
@click.option(
    "--images-per-shard", type=click.IntRange(min=1), help="Size of a shard. [default: a 32nd of the set, 250 to 5000]"
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="all cores",
    help="Processes.",
)
@click.option(
    "--executor",
    type=click.Choice(["process", "serial"]),
    default="process",
    show_default=True,
    help="Where shards are built.",
)
@click.option("--retry-failed", is_flag=True, help="Build again the shards with missing or unreadable images.")
def build_shards(source: str, root: Path, landmarks: tuple[Path, ...], template: str, **options: Any) -> None:
    """Align faces and store them as WebDataset tars with Parquet metadata.

    Interrupted at any moment, the same command goes on where it stopped.
    """
    from pipeline.build import build
    from pipeline.build_options import BuildOptions
    from pipeline.sources import SOURCES, landmark_files
    from shards.schema import Preprocessing

    files = landmarks or tuple(landmark_files(SOURCES[source], root))
    build(
        BuildOptions(
            source=source, root=root, landmarks=files, preprocessing=Preprocessing(template=template), **options
        )
    )


@main.command()
@click.argument("shards", type=click.Path(path_type=Path), default=data("shards"))
@click.option("--full", is_flag=True, help="Read every byte and compare hashes.")
def verify(shards: Path, full: bool) -> None:
    """Check a shard set; names everything that is wrong and exits 1 if anything is."""
    from pipeline.progress import Progress
    from shards.schema import Manifest
    from shards.verify import verify as problems_of

    manifest = Manifest.read(shards)
    with Progress("verify", manifest.shards, "shards") as progress:
        problems = list(problems_of(shards, full=full, on_shard=progress.update))
    for problem in problems:
        click.echo(problem)
    if problems:
        _fail(
            f"{shards}: {len(problems)} problem{'s' if len(problems) > 1 else ''}; restore the files, or delete the folder and build again"
        )
    click.echo(
        f"{shards}: sound; {manifest.images:,} images, {manifest.shards} shards{'' if full else ' (sizes and indexes; --full reads every byte)'}"
    )


@main.command()
@click.argument("shards", type=click.Path(path_type=Path), default=data("shards"))
@click.option("--out", type=click.Path(path_type=Path), help="Contact sheet PNG. [default: SHARDS/contact-sheet.png]")
def inspect(shards: Path, out: Path | None) -> None:
    """Print a shard set's figures and draw a contact sheet of what the network sees."""
    from pipeline.inspect import contact_sheet, figures

    click.echo(figures(shards))
    click.echo(f"contact sheet: {contact_sheet(shards, out or shards / 'contact-sheet.png')}")


@main.command()
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
def train(shards: Path, out: Path | None, resume: str, device: str | None, loader_threads: int, **options: Any) -> None:
    """Train a deep Siamese network; Ctrl-C saves, and the same command goes on."""
    from model.checkpoint import read_checkpoint
    from model.config import TrainConfig
    from model.train import find_resume, new_run, restore
    from model.train import train as run_training
    from pipeline.loader import Loader
    from shards.index import ShardIndex

    config = TrainConfig(**options)
    device = pick_device(device)
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
    with loader as batches:
        done = run_training(batches, learner, optimiser, run, start=start)
    if done < config.steps:
        click.echo(f"interrupted after step {done}; saved in {run}: run the same command to go on", err=True)
        sys.exit(130)
    click.echo(f"trained {done} steps: {run}", err=True)


def pick_device(device: str | None) -> str:
    """The asked-for device, by default ``cuda`` where there is one."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        _fail("--device cuda: this PyTorch sees no GPU; use --device cpu, or install a CUDA build of PyTorch")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


@main.group()
def bench() -> None:
    """Score a checkpoint on a public benchmark."""


def scoring(command: Any) -> Any:
    """The options that all benchmarks share."""
    for option in reversed(
        [
            click.option(
                "--checkpoint",
                type=click.Path(path_type=Path),
                help="Ours, or a bare .pth state dict. [default: the newest run's]",
            ),
            click.option(
                "--json", "json_file", type=click.Path(path_type=Path), help="Write figures and scores as JSON."
            ),
            click.option(
                "--report", type=click.Path(path_type=Path), help="Folder for a report: HTML, Markdown, pictures."
            ),
            click.option(
                "--batch-size",
                type=click.IntRange(min=1),
                default=64,
                show_default=True,
                help="Images embedded at a time.",
            ),
            click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]"),
            click.option(
                "--precision",
                type=click.Choice(["fp32", "bf16"]),
                default="fp32",
                show_default=True,
                help="Of the network's products; bf16 is quicker and scores a little differently.",
            ),
            click.option("--no-cache", is_flag=True, help="Neither use nor keep embeddings under $LRFR_DATA/cache."),
            click.option(
                "--allow-missing", is_flag=True, help="Score without images that cannot be used: partial figures."
            ),
        ]
    ):
        command = option(command)
    return command


def landmarks_option(help: str) -> Any:
    """``--landmarks`` of a benchmark."""
    return click.option("--landmarks", type=click.Path(path_type=Path), multiple=True, help=help)


def add_benchmark(name: str, benchmark: Benchmark) -> None:
    """Makes ``bench NAME``."""

    @scoring
    @folder("--root", benchmark.folder, help="The data set's folder.")
    def command(root: Path, landmarks: tuple[Path, ...] = (), **options: Any) -> None:
        failed = score([name], lambda _: benchmark.read(root, landmarks), **options)
        if failed:
            raise failed[0]

    if benchmark.aligned:
        command = landmarks_option("Table of landmarks; may be given several times. [default: found by --root]")(
            command
        )
    bench.command(name, help=benchmark.summary, short_help=benchmark.summary.partition(":")[0])(command)


for _name, _benchmark in BENCHMARKS.items():
    add_benchmark(_name, _benchmark)


@bench.command("all")
@scoring
@folder("--root", help="The folder with all data sets.")
def bench_all(root: Path, **options: Any) -> None:
    """Every benchmark whose data set is there; says which are not."""
    from benchmarks.errors import AbsentError
    from benchmarks.layout import find_entry

    def read(name: str) -> Any:
        home = BENCHMARKS[name].folder
        return BENCHMARKS[name].read(find_entry(root, home) or root / home)

    failed = score(list(BENCHMARKS), read, **options)
    for error in failed:
        click.echo(f"{'not found' if isinstance(error, AbsentError) else 'Error'}: {error}", err=True)
    wrong = [error for error in failed if not isinstance(error, AbsentError)]
    if len(failed) == len(BENCHMARKS):
        _fail(f"{root}: nothing was scored; --root names the folder with LFW, SCface, QMUL-SurvFace, ...")
    if wrong:
        _fail(f"{len(wrong)} of {len(BENCHMARKS)} benchmarks could not be scored, see above")


def score(
    names: list[str],
    read: Callable[[str], Any],
    *,
    checkpoint: Path | None,
    json_file: Path | None,
    report: Path | None,
    device: str | None,
    precision: str,
    batch_size: int,
    no_cache: bool,
    allow_missing: bool,
) -> list[Exception]:
    """Scores a checkpoint on each benchmark, prints, writes what was asked for; returns why others were not scored."""
    from benchmarks.cache import EmbeddingCache
    from benchmarks.errors import ProtocolError
    from benchmarks.prepare import follow
    from benchmarks.report import print_result, write_report
    from benchmarks.result import write_json
    from benchmarks.runner import Engine, run
    from model.checkpoint import load_backbone, newest_checkpoint
    from model.embed import Embedder

    backbone, stated, facts = load_backbone(checkpoint or newest_checkpoint(data("runs")()))
    if stated is None:
        click.echo("bare state dict: it states no preprocessing, the reference's is assumed", err=True)
    spec, device = follow(stated, facts), pick_device(device)
    embed = Embedder(backbone, device=device, precision=precision, mean=spec.mean, std=spec.std)  # type: ignore[arg-type]
    results: list[Any] = []
    failed: list[Exception] = []
    network = data("cache", f"{facts['digest'][:16]}-{precision}-{device}")()
    with contextlib.nullcontext() if no_cache else EmbeddingCache(network) as cache:
        engine = Engine(embed=embed, spec=spec, cache=cache, batch_size=batch_size)
        for name in names:
            try:
                results.append(run(read(name), engine, checkpoint=facts, allow_missing=allow_missing))
                click.echo(print_result(results[-1]) + "\n" * (len(names) > 1))
            except ProtocolError as error:
                failed.append(error)
    if results and json_file:
        write_json(results, json_file)
    if results and report:
        click.echo(f"report: {write_report(results, report)}")
    return failed


@bench.command("compare")
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
def compare_results(results: tuple[Path, ...]) -> None:
    """Set two or more --json files side by side, with paired intervals of the differences."""
    from benchmarks.compare import compare, legend
    from benchmarks.document import as_text

    if len(results) < 2:
        raise click.UsageError("compare needs two files or more")
    for grid in compare(list(results)):
        click.echo(as_text(grid) + "\n")
    click.echo("\n".join(legend(list(results))))


if __name__ == "__main__":
    main()
