"""Measures how the cost of building, opening, reading and searching grows with the amount of data.

Each size is measured in a fresh process. The whole takes some minutes and needs 3 GB in $TMPDIR; --quick needs 50 MB.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this is a script of the repository, not a package

from benchmarks.report.document import Grid, as_text
from benchmarks.speed.faces import Face, Setup, read_faces, resized, write_tree
from benchmarks.speed.timing import cores
from shards.index import ShardIndex
from tools.cold_cache import UncountedError, cold_read
from tools.costs import BATCH, Costs, build_cost, in_fresh_process, start_cost
from tools.made_set import VGGFACE2_IMAGES, make_set

SOURCE_PX = 160
FACES, QUICK_FACES, MAX_SHIFT_PX = 4096, 64, 2.0
PROBES = 1000
AXIS_MARGIN, MIN_AXIS_SPAN = 2.0, 10.0  # factors, of logarithmic axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """Costs by size.

    Attributes:
        unit: what the sizes count, such as ``rows``.  sizes: (K,) ascending.
        costs: (K,) values by name; the last word of a name is the unit.
        facts: about what was measured.
    """

    title: str
    unit: str
    sizes: list[int]
    costs: dict[str, list[float]]
    facts: dict[str, str]

    def exponent(self, name: str) -> float:
        """The power of the size with which a cost grows, from a line through the logarithms; 1 is linear."""
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
    return Scaling(
        title=title,
        unit=unit,
        sizes=sizes,
        costs={name: [one[name] for one in found] for name in found[0]},
        facts=facts,
    )


def measure_all(setup: Setup) -> Iterator[Scaling]:
    """Five tables. Opening and scoring are timed ``setup.rounds`` times, building once."""
    folder, quick = setup.scratch, setup.quick
    faces = jittered_faces(setup.data_sets(), QUICK_FACES if quick else FACES)
    base, workers = folder / "base", 1 if quick else cores()
    sizes = [250, 1000] if quick else [1000, 10_000, 100_000]

    def built(images: int) -> Costs:
        return _build(faces, folder, images, base if images == sizes[1] else folder / f"built-{images}", workers)

    facts = {"workers": str(workers), "sources": f"{SOURCE_PX} px, links to {len(faces):,} files in the page cache"}
    yield measure("Building shards", "images", sizes, built, facts)
    few = faces[:8] if quick else faces[:32]

    def built_large(pixels: int) -> Costs:
        width = round((pixels * 1.5) ** 0.5)
        large = [resized(face, width, width * 2 // 3) for face in few]
        return _build(large, folder, len(few), folder / f"built-{width}-px", 1)

    sizes_px = [width * width * 2 // 3 for width in ([160, 640] if quick else [160, 480, 1440, 3072])]
    title = f"Building from larger sources, {len(few)} images"
    yield measure(title, "pixels", sizes_px, built_large, {"larger sources": "3:2, one worker"})

    def started(rows: int) -> Costs:
        make_set(base, folder / "made", rows)
        try:
            return in_fresh_process(start_cost, folder / "made", setup.rounds)
        finally:
            shutil.rmtree(folder / "made")

    rows = [1000, 4000] if quick else [10_000, 100_000, 1_000_000, VGGFACE2_IMAGES]
    first = f"{BATCH} identities, default views, on the CPU; after the import of torch and DALI"
    yield measure("Starting a loader", "rows", rows, started, {"first batch": first})
    yield from measure_cold(ShardIndex(base), [16, 64] if quick else [32, 128, 512, 2048])

    def searched(gallery: int) -> Costs:
        from tools.search_cost import search_cost  # SciPy, which the processes of the other costs do not load

        return in_fresh_process(search_cost, gallery, gallery // 5 if quick else PROBES, setup.rounds)

    gallery = [500, 2000] if quick else [1000, 10_000, 50_000, 150_000]
    probes = "a fifth of the gallery" if quick else f"{PROBES:,}"
    facts = {"probes": probes, "memory of identification": "what scoring adds to the embeddings"}
    yield measure("Identification", "gallery", gallery, searched, facts)


def jittered_faces(root: Path, count: int) -> list[Face]:
    """``count`` small faces; repeated ones have slightly different landmarks, so that their crops differ."""
    found = [resized(face, SOURCE_PX, SOURCE_PX) for face in read_faces(root, count)]
    rng = np.random.default_rng(0)
    faces = (found[number % len(found)] for number in range(count))
    return [Face(face.image, face.points + rng.uniform(-MAX_SHIFT_PX, MAX_SHIFT_PX, 2)) for face in faces]


def _build(faces: list[Face], folder: Path, images: int, out: Path, workers: int) -> Costs:
    tree = write_tree(faces, folder / "tree", images=images, grey=False)
    try:
        return in_fresh_process(build_cost, tree, out, workers)
    finally:
        shutil.rmtree(tree)


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
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure = Figure(layout="constrained", figsize=(8.5, 3.1 * len(scalings)))
    for scaling, part in zip(scalings, figure.subfigures(len(scalings), 1, squeeze=False)[:, 0], strict=True):
        units = list(dict.fromkeys(name.split()[-1] for name in scaling.costs))
        for unit, axes in zip(units, part.subplots(1, len(units), squeeze=False)[0], strict=True):
            for name, values in scaling.costs.items():
                if name.split()[-1] == unit:
                    label = f"{name.removesuffix(unit)}~ {scaling.unit}^{scaling.exponent(name):.2f}"
                    axes.plot(scaling.sizes, values, "o-", markersize=4, label=label)
            axes.set(xscale="log", yscale="log")
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, high / MIN_AXIS_SPAN), high * AXIS_MARGIN)  # a nearly constant cost looks flat
            axes.set_xlabel(scaling.unit, fontsize=9)
            axes.set_ylabel(unit, fontsize=9)
            for axis, steps in ((axes.xaxis, (1,)), (axes.yaxis, (1, 2, 5))):
                axis.set_major_locator(LogLocator(subs=steps))
                axis.set_major_formatter(EngFormatter(sep=""))
                axis.set_minor_formatter(NullFormatter())
            axes.grid(alpha=0.3)
            axes.tick_params(labelsize=8)
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
    records: list[dict[str, Any]] = [
        {**dataclasses.asdict(one), "exponents": {name: one.exponent(name) for name in one.costs}} for one in scalings
    ]
    if json_file:
        json_file.write_text(json.dumps(records, indent=1) + "\n")
    if chart:
        write_chart(scalings, chart)


if __name__ == "__main__":
    main()
