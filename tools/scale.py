"""Measures how the cost of building, opening, reading and searching grows with the amount of data.

Each size is measured in a fresh process. The whole takes some minutes and needs 3 GB in $TMPDIR; --quick needs 50 MB.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script of the repository, not an installed package

from benchmarks.report.document import Grid, as_text
from benchmarks.speed.faces import Face, Setup, read_faces, resized, write_tree
from benchmarks.speed.timing import cores
from shards.index import ShardIndex
from tools.cold_cache import UncountedError, cold_read
from tools.costs import BATCH, Costs, build_cost, in_fresh_process, search_cost, start_cost
from tools.made_set import VGGFACE2_IMAGES, make_set

SOURCE_PX = 160
FACES, QUICK_FACES, MAX_SHIFT_PX = 4096, 64, 2.0
PROBES = 1000
AXIS_MARGIN, MIN_AXIS_SPAN = 2.0, 10.0  # factors, of logarithmic axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """Costs by size."""

    title: str
    unit: str  # what the sizes count, such as rows
    sizes: list[int]  # ascending
    costs: dict[str, list[float]]  # a value for each size; the last word of a name is the unit
    facts: dict[str, str]  # about what was measured

    def exponent(self, name: str) -> float:
        """The power of the size with which a cost grows, fitted to the logarithms; 1 is linear."""
        slope = np.polyfit(np.log(self.sizes), np.log(self.costs[name]), 1)[0]
        return round(float(slope), 2) + 0.0  # not -0.0

    def table(self) -> str:
        """A row per size, and the exponents."""
        rows = [
            [f"{size:,}", *(f"{values[place]:,.4g}" for values in self.costs.values())]
            for place, size in enumerate(self.sizes)
        ]
        rows.append(["grows with the power", *(f"{self.exponent(name):.2f}" for name in self.costs)])
        facts = ", ".join(f"{name}: {value}" for name, value in self.facts.items())
        return f"{as_text(Grid(caption=self.title, header=[self.unit, *self.costs], rows=rows))}\n{facts}\n"


def measure(title: str, unit: str, sizes: list[int], cost: Callable[[int], Costs], facts: dict[str, str]) -> Scaling:
    """Calls ``cost`` for each size."""
    found = []
    for size in sizes:
        print(f"{title}: {size:,} {unit}", file=sys.stderr)
        found.append(cost(size))
    costs = {name: [one[name] for one in found] for name in found[0]}
    return Scaling(title=title, unit=unit, sizes=sizes, costs=costs, facts=facts)


def measure_all(setup: Setup) -> Iterator[Scaling]:
    """Five tables. Opening and scoring are timed ``setup.rounds`` times, building once."""
    faces = jittered_faces(setup.data_sets(), QUICK_FACES if setup.quick else FACES)
    base = setup.scratch / "base"
    yield from measure_builds(setup, faces, base)

    def started(rows: int) -> Costs:
        made = setup.scratch / f"made-{rows}"
        make_set(base, made, rows)
        return in_fresh_process(start_cost, made, setup.rounds)

    def searched(gallery: int) -> Costs:
        return in_fresh_process(search_cost, gallery, gallery // 5 if setup.quick else PROBES, setup.rounds)

    rows = [1000, 4000] if setup.quick else [10_000, 100_000, 1_000_000, VGGFACE2_IMAGES]
    first = f"{BATCH} identities, default views, on the CPU; after the import of torch and DALI"
    yield measure("Starting a loader", "rows", rows, started, {"first batch": first})
    yield from measure_cold(ShardIndex(base), [16, 64] if setup.quick else [32, 128, 512, 2048])
    gallery = [500, 2000] if setup.quick else [1000, 10_000, 50_000, 150_000]
    probes = "a fifth of the gallery" if setup.quick else f"{PROBES:,}"
    facts = {"probes": probes, "memory of identification": "what scoring adds to the embeddings"}
    yield measure("Identification", "gallery", gallery, searched, facts)


def measure_builds(setup: Setup, faces: list[Face], base: Path) -> Iterator[Scaling]:
    """Builds by number of images, keeping one as ``base``, and by size of the images."""
    workers = 1 if setup.quick else cores()
    sizes = [250, 1000] if setup.quick else [1000, 10_000, 100_000]
    few = faces[:8] if setup.quick else faces[:32]

    def built(faces: list[Face], images: int, out: Path, workers: int) -> Costs:
        tree = write_tree(faces, out.with_suffix(".tree"), images=images, grey=False)
        return in_fresh_process(build_cost, tree, out, workers)

    def many(images: int) -> Costs:
        out = base if images == sizes[1] else setup.scratch / f"{images}-images"
        return built(faces, images, out, workers)

    def large(pixels: int) -> Costs:
        width = round((pixels * 1.5) ** 0.5)
        photos = [resized(face, width, width * 2 // 3) for face in few]
        return built(photos, len(few), setup.scratch / f"{pixels}-pixels", 1)

    facts = {"workers": str(workers), "sources": f"{SOURCE_PX} px, links to {len(faces):,} files in the page cache"}
    yield measure("Building shards", "images", sizes, many, facts)
    pixels = [width * width * 2 // 3 for width in ([160, 640] if setup.quick else [160, 480, 1440, 3072])]
    title = f"Building from larger sources, {len(few)} images"
    yield measure(title, "pixels", pixels, large, {"larger sources": "3:2, one worker"})


def jittered_faces(root: Path, count: int) -> list[Face]:
    """``count`` small faces; repeated ones have slightly different landmarks, so that their crops differ."""
    found = [resized(face, SOURCE_PX, SOURCE_PX) for face in read_faces(root, count)]
    shifts = np.random.default_rng(0).uniform(-MAX_SHIFT_PX, MAX_SHIFT_PX, (count, 2))
    return [Face(face.image, face.points + shift) for face, shift in zip(itertools.cycle(found), shifts, strict=False)]


def measure_cold(index: ShardIndex, sizes: list[int]) -> Iterator[Scaling]:
    """Bytes fetched by reading random images from a cold cache; nothing where they cannot be counted."""
    rng = np.random.default_rng(0)
    try:
        found = [cold_read(index, rng.choice(len(index), size, replace=False)) for size in sizes]
    except UncountedError as error:
        print(f"cold reading is not measured: {error}", file=sys.stderr)
        return
    factor = sum(one.fetched for one in found) / sum(one.wanted for one in found)
    costs = {"wanted MB": [one.wanted / 1e6 for one in found], "fetched MB": [one.fetched / 1e6 for one in found]}
    title, facts = f"Cold cache: {factor:.2f} bytes read for one wanted", {"bytes fetched": found[0].counted}
    yield Scaling(title=title, unit="images", sizes=sizes, costs=costs, facts=facts)


def write_chart(scalings: list[Scaling], path: Path) -> None:
    """Writes a PNG with a panel for each unit of cost, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", figsize=(8.5, 3.1 * len(scalings)))
    for scaling, part in zip(scalings, figure.subfigures(len(scalings), 1, squeeze=False)[:, 0], strict=True):
        units = list(dict.fromkeys(name.split()[-1] for name in scaling.costs))
        for unit, axes in zip(units, part.subplots(1, len(units), squeeze=False)[0], strict=True):
            for name, values in scaling.costs.items():
                if name.split()[-1] == unit:
                    label = f"{name.removesuffix(unit)}~ {scaling.unit}^{scaling.exponent(name):.2f}"
                    axes.plot(scaling.sizes, values, "o-", markersize=4, label=label)
            axes.set(xscale="log", yscale="log", xlabel=scaling.unit, ylabel=unit)
            axes.xaxis.set_minor_formatter("")
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, high / MIN_AXIS_SPAN), high * AXIS_MARGIN)  # a nearly constant cost looks flat
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
        part.suptitle(scaling.title, fontsize=10, x=0.01, ha="left")
    figure.savefig(path, dpi=130)


@click.command(help=__doc__)
@click.option("--root", type=click.Path(path_type=Path, exists=True), help="Folder with VGGFace2. [default: generated]")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Times to open and to score.")
@click.option("--quick", is_flag=True, help="Small sizes, for a rough run in a minute.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the costs as JSON.")
@click.option("--chart", type=click.Path(path_type=Path), help="Draw the costs as PNG.")
def main(root: Path | None, rounds: int, quick: bool, json_file: Path | None, chart: Path | None) -> None:
    scalings: list[Scaling] = []
    with tempfile.TemporaryDirectory(prefix="lrfr-scale-") as folder:
        for scaling in measure_all(Setup(root=root, scratch=Path(folder), rounds=rounds, quick=quick)):
            print(scaling.table())
            scalings.append(scaling)
    exponents = [{"exponents": {name: one.exponent(name) for name in one.costs}} for one in scalings]
    if json_file:
        records = [dataclasses.asdict(one) | fitted for one, fitted in zip(scalings, exponents, strict=True)]
        json_file.write_text(json.dumps(records, indent=1) + "\n")
    if chart:
        write_chart(scalings, chart)


if __name__ == "__main__":
    main()
