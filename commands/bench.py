"""bench: scores a checkpoint on public benchmarks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import BENCHMARKS, Benchmark, read_benchmark
from commands.compare import MAX_COMPARED, compare, show
from commands.group import CommandError, check_alone, expected, line_of
from commands.landmark_finder import landmark_finder
from commands.network import open_engine, warn_of_guess
from commands.options import (
    PATH,
    LocalPath,
    allow_missing_option,
    folder,
    is_auto,
    landmarks_option,
    option_group,
    scoring_engine_options,
)
from commands.outputs import OutputPath, json_output, saved_results
from commands.provenance import network_facts
from commands.speed import speed
from pipeline.degradation.presets import Degradation, find_degradation
from shards.messages import counted

if TYPE_CHECKING:
    from benchmarks.scoring.results import Result


@click.group()
@click.pass_context
def bench(context: click.Context) -> None:
    """Score a checkpoint on public benchmarks.

    Several processes: torchrun --nproc-per-node N cli.py bench ...
    """
    if context.invoked_subcommand in ("speed", "compare"):
        check_alone(f"bench {context.invoked_subcommand}")


def degradation_of(context: click.Context, option: click.Parameter, value: str | None) -> Degradation | None:
    """``surveillance`` or ``mine.toml`` -> the preset."""
    return None if value is None else find_degradation(value)


scoring_options = option_group(
    scoring_engine_options,
    click.option("--json", "json_file", type=json_output(), help="Write metrics and scores as JSON."),
    click.option(
        "--name", "labels", multiple=True, help="Name of the network in tables and reports; one for each --network."
    ),
    click.option(
        "--report",
        type=OutputPath(folder=True),
        help="Write a report to a folder: HTML, Markdown, CSV, LaTeX, figures as PNG, SVG and PDF.",
    ),
    click.option(
        "--no-faces", is_flag=True, help="Leave images of the data set out of the report, as SCface's licence asks."
    ),
    allow_missing_option("Score without unusable images; the result is partial."),
)


degrade_option = click.option(
    "--degrade",
    callback=degradation_of,
    metavar="NAME|FILE.toml",
    help="How images are degraded to sizes: surveillance, webcam, blind-sr or a TOML file, as for train --views."
    " [default: by the bicubic filter]",
)


def add_benchmark(name: str, benchmark: Benchmark) -> None:
    """Adds the command ``bench NAME``."""

    @scoring_options
    @degrade_option
    @folder("--root", benchmark.folder, help="Folder of the data set.")
    def command(root: Path, landmarks: tuple[Path, ...] = (), **options: Any) -> None:
        finder = landmark_finder([root], no_cache=options["no_cache"], max_pixels=options["max_pixels"])
        with finder as find:
            failures = score(
                [name], lambda _: benchmark.read(root, find if is_auto(landmarks) else landmarks), **options
            )
        if failures:
            raise failures[name]

    if benchmark.aligned:
        command = landmarks_option("Landmark table; may be repeated. [default: found under --root]")(command)
    bench.command(name, help=benchmark.summary, short_help=benchmark.summary.partition(":")[0])(command)


for _name, _benchmark in BENCHMARKS.items():
    add_benchmark(_name, _benchmark)


def sizes_of(context: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """``8,16`` -> (8, 16); ``full`` -> ()."""
    words = [word.strip() for word in value.split(",") if word.strip() not in ("", "full")]
    if not all(word.isascii() and word.isdecimal() and 0 < len(word) < 6 for word in words):
        raise click.BadParameter(f"{value!r}: expected sizes in px, such as 8,12,16,20, or full")
    return tuple(dict.fromkeys(map(int, words)))


own_options = option_group(
    landmarks_option("Landmark table to align photographs by; may be repeated."),
    click.option(
        "--aligned",
        help="Template that the images, aligned crops, follow: arcface, seed, or a TOML file with name, size and points; none"
        " to resize them whole. [default: arcface for .bin files]",
    ),
    click.option(
        "--sizes",
        default="8,12,16,20",
        show_default=True,
        callback=sizes_of,
        metavar="SIZE,SIZE",
        help="Sizes in px that images are degraded to, beside full size; full: none.",
    ),
)


@bench.command("pairs", short_help="Verification pairs of your own: a list, or an insightface .bin file.")
@click.argument("pairs", type=PATH)
@click.option("--root", type=LocalPath(file_okay=False), help="Folder of the images. [default: the folder of the list]")
@own_options
@degrade_option
@scoring_options
def bench_pairs(pairs: Path, root: Path | None, **options: Any) -> None:
    """Score verification pairs: accuracy over folds, AUC and TAR at FAR 1 and 0.1 %, at full size and at 8 to 20 px.

    PAIRS is a table (text or Parquet) of two paths below --root and 1 or 0, same or different, ...; a list in LFW's
    form, of names and numbers; or a .bin file as insightface hands round, such as cfp_fp.bin, of which nothing is
    executed.
    """
    from benchmarks.datasets.pair_set import read_pair_set

    folders = [root or pairs.parent]
    score_own("pairs", lambda **preparation: read_pair_set(pairs, root=root, **preparation), folders, **options)


@bench.command("identify", short_help="Your own gallery and probes: folders of identities.")
@click.option("--gallery", type=LocalPath(file_okay=False), required=True, help="Folder of known people: PERSON/image.")
@click.option(
    "--probes", type=LocalPath(file_okay=False), required=True, help="Folder of images to find: PERSON/image."
)
@click.option(
    "--unmated", type=LocalPath(file_okay=False), help="Folder of images of people who are not in the gallery."
)
@own_options
@degrade_option
@scoring_options
def bench_identify(gallery: Path, probes: Path, unmated: Path | None, **options: Any) -> None:
    """Score identification: ranks and mAP of probes in a gallery; with --unmated, TPIR at FPIR 30, 20, 10 and 1 %.

    Each person has a folder of images, of the same name in the gallery and among the probes.
    """
    from benchmarks.datasets.identify import read_identification

    folders = [gallery, probes, *([unmated] if unmated else [])]
    score_own(
        "identify",
        lambda **preparation: read_identification(gallery, probes, unmated, **preparation),
        folders,
        **options,
    )


def score_own(
    name: str,
    read: Callable[..., Any],
    folders: list[Path],
    *,
    landmarks: tuple[Path, ...],
    aligned: str | None,
    sizes: tuple[int, ...],
    **options: Any,
) -> None:
    """Scores a question of the user's own.

    Args:
        read: ``landmarks``, ``aligned`` and ``sizes`` -> protocol.
        folders: of the images.
        options: of ``score``.
    """
    if landmarks and aligned:
        raise click.UsageError("--landmarks and --aligned: aligned crops need no landmarks; leave one of them out")
    finder = landmark_finder(folders, no_cache=options["no_cache"], max_pixels=options["max_pixels"])
    with finder as find:
        tables = find if is_auto(landmarks) else landmarks
        failures = score([name], lambda _: read(landmarks=tables, aligned=aligned, sizes=sizes), **options)
    if failures:
        raise failures[name]


@bench.command("all", short_help="Every benchmark whose data set is present.")
@scoring_options
@folder("--root", help="Folder that contains all data sets.")
def bench_all(root: Path, **options: Any) -> None:
    """Run every benchmark whose data set is present, and list the others."""
    from benchmarks.errors import AbsentError

    failures = score(list(BENCHMARKS), lambda name: read_benchmark(name, root), **options)
    for name, error in failures.items():
        status = "not found" if isinstance(error, AbsentError) else "not scored"
        click.echo(f"{name}: {status}: {line_of(error).removeprefix(f'bench {name}: ')}", err=True)
    if len(failures) == len(BENCHMARKS):
        raise CommandError(
            f"{root}: no benchmark was scored; --root names the folder with LFW, SCface, QMUL-SurvFace, ..."
        )
    if failed := sum(not isinstance(error, AbsentError) for error in failures.values()):
        raise CommandError(f"{failed} of {len(BENCHMARKS)} benchmarks could not be scored, see above")


def score(
    names: list[str],
    read: Callable[[str], Any],
    *,
    network: tuple[Path, ...] = (),
    json_file: Path | None,
    report: Path | None,
    no_faces: bool = False,
    labels: tuple[str, ...] = (),
    **options: Any,
) -> dict[str, Exception]:
    """Scores networks on benchmarks, and compares them; a failure of one does not stop the others.

    Args:
        read: name -> protocol.
        network: path of each network; none for the newest checkpoint.
        labels: names of the networks; none, or one for each.
        options: of ``score_network``.

    Returns:
        The error of each benchmark that could not be scored.

    Raises:
        CommandError: some of several networks could not be opened.
    """
    from benchmarks.scoring.comparison import Network

    paths: tuple[Path | None, ...] = network or (None,)
    if len(paths) > MAX_COMPARED:
        raise click.UsageError(f"--network: {len(paths)} networks, expected at most {MAX_COMPARED}")
    if len(labels) not in (0, len(paths)):
        names_given, networks = counted(len(labels), "name"), counted(len(paths), "network")
        raise click.UsageError(f"--name: {names_given} for {networks}; name all of them, or none")
    if no_faces and report is None:
        raise click.UsageError("--no-faces: only a report shows faces; add --report, or leave it out")
    failures: dict[str, Exception] = {}
    scored, unusable = [], 0
    protocols = functools.cache(read)
    with saved_results(json_file, report, len(names) * len(paths), faces=not no_faces) as save:
        for path, label in itertools.zip_longest(paths, labels):
            try:
                results, failed = score_network(names, protocols, save, network=path, label=label, **options)
            except Exception as error:
                if len(paths) == 1 or not expected(error):
                    raise
                unusable += 1
                click.echo(f"{path}: not scored: {line_of(error)}", err=True)
                continue
            failures |= failed
            if results:
                found = {result.benchmark: result for result in results}
                scored.append(Network(path=Path(results[0].checkpoint["path"]), results=found))
    if len(scored) > 1:
        show(scored)
    if unusable:
        raise CommandError(f"{unusable} of {len(paths)} networks could not be scored, see above")
    return failures


def score_network(
    names: list[str],
    read: Callable[[str], Any],
    save: Callable[[Result], None],
    *,
    label: str | None,
    allow_missing: bool,
    degrade: Degradation | None = None,
    **options: Any,
) -> tuple[list[Result], dict[str, Exception]]:
    """Scores a network on benchmarks; a failure of one does not stop the others.

    Args:
        read: name -> protocol.
        save: is called with each result.
        label: name of the network, if the user gave one.
        degrade: how images are degraded to sizes; None: by the bicubic filter.
        options: of ``open_engine``.

    Returns:
        The results, and the error of each benchmark that could not be scored.
    """
    from benchmarks.engine.runner import run
    from benchmarks.report.tables import result_text

    results: list[Result] = []
    failures: dict[str, Exception] = {}
    with open_engine(**options) as (engine, loaded, facts):
        facts |= network_facts(loaded, label, facts["device"])
        facts |= {"degradation": degrade.label} if degrade else {}
        checked = False
        for name in names:
            try:
                protocol = read(name)
                protocol = protocol.degraded(degrade) if degrade else protocol
                checked = checked or warn_of_guess(loaded, protocol, facts["device"])
                result = run(protocol, engine, checkpoint=facts, allow_missing=allow_missing)
            except Exception as error:
                if not expected(error):
                    raise
                failures[name] = error
                continue
            results.append(result)
            save(result)
            click.echo(result_text(result) + ("\n" if len(names) > 1 else ""))
    return results, failures


bench.add_command(speed)
bench.add_command(compare)
