"""Plants known faults in a training set, audits it, and prints the precision and recall of every finding.

Without --root, faces are generated. Without --network or --no-network, a network is trained on the set with its
faults, some minutes on a CPU.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script of the repository, not an installed package

import cli
from benchmarks import read_benchmark
from benchmarks.audit.run import TABLE, audit_set
from benchmarks.engine.runner import Engine
from benchmarks.report.document import Grid, as_text
from pipeline.demo.generate import write_demo_data
from shards.index import ShardIndex
from tools.discriminant import Discriminant
from tools.planted_faults import Photo, Planter, Shares, Truth, read_photos

GENERATED_PEOPLE, GENERATED_IMAGES = 120, 12
STRANGERS = 5  # one generated person in so many is in no set but through wrong labels


def plant(root: Path, out: Path, min_images: int, shares: Shares) -> Truth:
    """Writes ``out/VGGFace2`` from the data sets in ``root``."""
    source = root / "VGGFace2"
    tables = sorted((source / "bb_landmark").glob("loose_landmark_*.csv"))
    people: dict[str, list[Photo]] = {}
    for table in tables:
        people |= read_photos(source / table.stem.rpartition("_")[2], table)
    tests = read_photos(root / "LFW" / "lfw", root / "LFW" / "LFW.csv")
    strangers = [shots[0] for shots in people.values() if len(shots) < min_images]
    if not strangers:
        strangers = [photo for person in list(people)[::STRANGERS] for photo in people.pop(person)]
    planter = Planter(out / "VGGFace2", seed=0)
    planter.plant(
        {person: shots for person, shots in people.items() if len(shots) >= min_images}, strangers, tests, shares
    )
    return planter.truth


def scores(truth: Truth, table: list[dict]) -> list[list[str]]:
    """Rows of finding, planted, found, and the percentages of precision and recall."""

    def pairs(kind: str, first: str, second: str) -> set:
        return {(min(a, b), max(a, b)) for a, b in ((r[first], r[second]) for r in table if r["finding"] == kind)}

    def keys(kind: str, sure: bool = False) -> set:
        return {row["key"] for row in table if row["finding"] == kind and (row["excluded"] or not sure)}

    people = {row["identity"] for row in table if row["finding"] == "benchmark-person"}
    compared: list[tuple[str, set, set]] = [
        ("wrong labels", truth.wrong, keys("wrong-label")),
        ("wrong labels, excluded", truth.wrong, keys("wrong-label", sure=True)),
        ("one person, two names", truth.split, pairs("same-person", "identity", "other_identity")),
        ("one photograph twice", truth.copies, pairs("same-photograph", "key", "other_key")),
        ("photographs of LFW", truth.test_images, keys("benchmark-photograph")),
        ("people of LFW", truth.test_people, people),
    ]
    rows = []
    for name, planted, found in compared:
        right = len(planted & found)
        shares = [f"{100 * right / len(of):.1f}" if of else "-" for of in (found, planted)]
        rows.append([name, f"{len(planted):,}", f"{len(found):,}", *shares])
    return rows


def run(*words: object) -> None:
    """Runs a command of lrfr in this process."""
    cli.main([str(word) for word in words], standalone_mode=False)


def trained(folder: Path, steps: int) -> Path:
    """Trains a network on the set in ``folder``; returns its checkpoint."""
    quick = ("--recipe", "quick", "--views", "128", "--batch-size", "64", "--steps", steps)
    run("train", "--shards", folder / "shards", "--out", folder / "run", *quick)
    return max((folder / "run" / "checkpoints").glob("*.pt"))


@click.command(help=__doc__)
@click.option("--root", type=click.Path(path_type=Path, exists=True), help="Folder with VGGFace2 and LFW.")
@click.option("--network", help="Network to audit with, as for audit.")
@click.option("--no-network", is_flag=True, help="Audit with a linear discriminant analysis, which takes seconds.")
@click.option("--steps", default=400, show_default=True, help="Training steps, of 64 images.")
@click.option("--min-images", default=4, show_default=True, help="Leave out people with fewer images.")
@click.option("--clean", is_flag=True, help="Plant nothing: every finding is false.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder to work in, kept. [default: a temporary one]")
def main(
    root: Path | None,
    network: str | None,
    no_network: bool,
    steps: int,
    min_images: int,
    clean: bool,
    work: Path | None,
) -> None:
    with tempfile.TemporaryDirectory(prefix="lrfr-audit-") as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if root is None:
            root = folder / "faces"
            layouts = ["VGGFace2", "LFW"]
            write_demo_data(root, identities=GENERATED_PEOPLE, images=GENERATED_IMAGES, seed=0, layouts=layouts)
        none = Shares(wrong_labels=0, split_identities=0, copies=0, test_people=0)
        truth = plant(root, folder, min_images, none if clean else Shares())
        run("build-shards", "--root", folder / "VGGFace2", "--out", folder / "shards")
        if no_network:
            engine = Engine(embed=Discriminant(ShardIndex(folder / "shards")))
            print(*audit_set(folder / "shards", engine, folder / "audit", [read_benchmark("lfw", root)], {}), sep="\n")
        else:
            words = ("--network", network or trained(folder, steps), "--no-cache", "--against", "lfw", "--root", root)
            run("audit", folder / "shards", *words, "--out", folder / "audit")
        header = ["", "planted", "found", "precision %", "recall %"]
        rows = scores(truth, pq.read_table(folder / "audit" / TABLE).to_pylist())
        print(as_text(Grid(caption="finding", header=header, rows=rows)))


if __name__ == "__main__":
    main()
