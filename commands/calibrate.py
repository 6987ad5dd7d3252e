"""calibrate: fits likelihood ratios to scores of pairs, for search."""

from __future__ import annotations

from pathlib import Path

import click

from commands.group import interruptible
from commands.options import PATH
from commands.outputs import JSON_FILE, check_outputs


@click.command(short_help="Fit likelihood ratios to scores of known people, for search.")
@click.argument("pairs", type=PATH, nargs=-1, required=True)
@click.option("--out", type=JSON_FILE, required=True, help="JSON file to write, for search --calibration.")
@click.option("--setting", help="Pairs of a bench --json file that has several, such as lfw@8 or lfw/lr-lr@8.")
def calibrate(pairs: tuple[Path, ...], out: Path, setting: str | None) -> None:
    """Fit likelihood ratios to the scores of pairs of known people, by logistic regression.

    PAIRS is a bench --json file with pairs (lfw, xqlfw, qmul, pairs), or two files of embed with a column identity, a
    gallery and probes; a single one is compared with itself. The pairs should be like those of the search: the
    same network, kind of cameras, resolution and people. At least 50 genuine pairs of 20 people and 200
    impostor pairs are needed. Prints Cllr, the cost of the likelihood ratios, and its minimum.
    """
    from benchmarks.search.scored_pairs import read_pairs
    from benchmarks.search.summary import calibration_lines

    if len(pairs) > 2:
        raise click.UsageError(f"expected a bench --json file, or one or two files of embed, found {len(pairs)} files")
    check_outputs({"--out": out}, pairs)
    with interruptible():
        calibration = read_pairs(pairs, setting).calibrate()
        calibration.write(out)
    click.echo("\n".join(calibration_lines(calibration, out)))
