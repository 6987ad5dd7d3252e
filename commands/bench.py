"""bench: scores a checkpoint on public benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks import BENCHMARKS, Benchmark, read_benchmark
from commands.compare import compare
from commands.group import CommandError, check_alone, line_of
from commands.landmark_finder import landmark_finder
from commands.options import (
    PATH,
    LocalPath,
    folder,
    is_auto,
    landmarks_option,
    option_group,
    scoring_engine_options,
)
from commands.outputs import JSON_FILE, report_option
from commands.scoring import score, score_own
from commands.speed import speed
from pipeline.degradation.presets import find_degradation
from shards.messages import print_stderr


@click.group()
@click.pass_context
def bench(context: click.Context) -> None:
    """Score a network on public benchmarks, or on your own images.

    Several processes: torchrun --nproc-per-node N cli.py bench ...

    \b
    Examples:
      lrfr bench all --report report
      lrfr bench lfw --network net.onnx --network best.pt --landmarks auto
      lrfr bench pairs pairs.csv --root photos --landmarks auto --network net.onnx
    """
    if context.invoked_subcommand in ("speed", "compare"):
        check_alone(f"bench {context.invoked_subcommand}")


scoring_options = option_group(
    scoring_engine_options,
    click.option("--json", "json_file", type=JSON_FILE, help="Write metrics and scores as JSON."),
    click.option(
        "--name", "labels", multiple=True, help="Name of the network in tables and reports, one for each --network."
    ),
    report_option,
    click.option(
        "--no-faces", is_flag=True, help="Leave images of the data set out of the report, as SCface's licence asks."
    ),
    click.option("--allow-missing", is_flag=True, help="Score without unusable images; the result is partial."),
)
degrade_option = click.option(
    "--degrade",
    type=find_degradation,
    metavar="NAME|FILE.toml",
    help="Realistic degradation to low resolution: surveillance, webcam, blind-sr or a TOML file, as in train --views."
    " [default: the bicubic filter]",
)


def add_benchmark(name: str, benchmark: Benchmark) -> None:
    """Adds the command ``bench NAME``."""

    @scoring_options
    @folder("--root", benchmark.folder, help="Folder of the data set.")
    def command(root: Path, landmarks: tuple[Path, ...] = (), **options: Any) -> None:
        finder = landmark_finder([root], no_cache=options["no_cache"], max_pixels=options["max_pixels"])
        with finder as find:
            failures = score(
                [name], lambda _: benchmark.read(root, find if is_auto(landmarks) else landmarks), **options
            )
        if failures:
            raise failures[name]

    if benchmark.degrades:
        command = degrade_option(command)
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
        help="The images are aligned crops of this template: arcface, seed, or a TOML file with name, size and points; none:"
        " resize them whole. [default: arcface for .bin files]",
    ),
    click.option(
        "--sizes",
        default="8,12,16,20",
        show_default=True,
        callback=sizes_of,
        metavar="SIZE,SIZE",
        help="Sizes in px to which images are degraded, besides full size; full: no others.",
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

    PAIRS is a table (text or Parquet) with two paths below --root and 1 (same person) or 0 in each row; a list in LFW's
    form; or a .bin file of insightface, such as cfp_fp.bin, of which nothing is executed.
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

    Each person has a folder of images, with the same name in the gallery and among the probes.
    """
    from benchmarks.datasets.identify import read_identification

    folders = [gallery, probes, *([unmated] if unmated else [])]
    score_own(
        "identify",
        lambda **preparation: read_identification(gallery, probes, unmated, **preparation),
        folders,
        **options,
    )


@bench.command("all", short_help="Every benchmark whose data set is present.")
@scoring_options
@folder("--root", help="Folder that contains all data sets.")
def bench_all(root: Path, **options: Any) -> None:
    """Run every benchmark whose data set is present, and list the others."""
    from benchmarks.errors import AbsentError

    failures = score(list(BENCHMARKS), lambda name: read_benchmark(name, root), **options)
    for name, error in failures.items():
        status = "not found" if isinstance(error, AbsentError) else "not scored"
        print_stderr(f"{name}: {status}: {line_of(error).removeprefix(f'bench {name}: ')}")
    if failed := sum(not isinstance(error, AbsentError) for error in failures.values()):
        raise CommandError(f"{failed} of {len(BENCHMARKS)} benchmarks could not be scored, see above")
    if failures.keys() == BENCHMARKS.keys():
        raise CommandError(
            f"{root}: no data set is there; --root names the folder with LFW, SCface, QMUL-SurvFace, ..."
        )


bench.add_command(speed)
bench.add_command(compare)
