#!/usr/bin/env python3
"""Estimates what building and training cost at any size and what breaks first, and checks the model on this machine.

\b
    python tools/cost_model.py estimate --images 42e6 --cores 256 --gpus 8 --gpu-images-s 12000 --passes 20
    python tools/cost_model.py limits
    python tools/cost_model.py check

Prices and the speed of a GPU are options. ``check`` measures the other rates with generated faces at two sizes, and compares
predictions for two further sizes with measurements.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script of the repository, not an installed package

from benchmarks.report.document import Grid, as_text
from benchmarks.speed.timing import cores
from tools.limits import INDEX_BYTES, limits_grid
from tools.measured import FITTED_IMAGES, LOADER, PARENT, PREDICTED_IMAGES, QUICK, STORED, WORKERS, measured

HOUR_S, MILLION = 3600, 1e6
FILES_OF_A_SHARD = 4  # tar, DALI index, rows, record


def _option(help: str, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done, with what, at which rates and prices. Options of ``estimate``; underscores are dashes there."""

    images: float = _option("Images of the set.")
    images_per_shard: int = _option("As build-shards chooses for large sets.", 5000)
    cores: int = _option("CPU cores that build, of all machines.", 1)
    build_us: float = _option("CPU time of a worker for an image, us.", 380)
    parent_us: float = _option("CPU time of the process that plans and makes the index, for an image, us.", 6)
    start_s: float = _option("CPU time of starting a worker, s.", 1)
    source_bytes: float = _option("Bytes of a source image.", 20_000)
    stored_bytes: float = _option("Bytes of the set for an image.", 8300)
    passes: float = _option("How often training sees as many images as there are.", 0)
    gpus: int = _option("GPUs that train.", 1)
    gpu_images_s: float = _option("Images (identities x views) a second that a GPU trains on: bench speed gpu.", 0)
    loader_us: float = _option("CPU time of loading an image, us.", 160)
    months: float = _option("How long the set is stored.", 0)
    gb_out: float = _option("Gigabytes that leave a store for money.", 0)
    price_core_hour: float = _option("Of a CPU core.", 0)
    price_gpu_hour: float = _option("Of a GPU with its machine.", 0)
    price_gb_month: float = _option("Of stored bytes.", 0)
    price_gb_out: float = _option("Of bytes that leave a store.", 0)
    price_1000_reads: float = _option("Of a thousand GET requests.", 0)
    price_1000_writes: float = _option("Of a thousand PUT requests.", 0)

    @property
    def shards(self) -> int:
        return math.ceil(self.images / self.images_per_shard)

    @property
    def build_core_hours(self) -> float:
        return (self.images * (self.build_us + self.parent_us) / MILLION + self.cores * self.start_s) / HOUR_S

    @property
    def build_hours(self) -> float:
        """Planning and the index are not divided among the cores."""
        worker_s = self.images * self.build_us / MILLION / self.cores + self.start_s
        return (worker_s + self.images * self.parent_us / MILLION) / HOUR_S

    @property
    def gpu_hours(self) -> float:
        return self.passes * self.images / self.gpu_images_s / HOUR_S if self.gpu_images_s else 0.0

    @property
    def stored_gb(self) -> float:
        return self.images * self.stored_bytes / 1e9

    @property
    def writes(self) -> int:
        return FILES_OF_A_SHARD * self.shards

    @property
    def reads(self) -> float:
        """Of the source images, and of whole shards in each pass."""
        return self.images + self.passes * self.shards

    @property
    def money(self) -> float:
        return (
            self.build_core_hours * self.price_core_hour
            + self.gpu_hours * self.price_gpu_hour
            + self.stored_gb * self.months * self.price_gb_month
            + self.gb_out * self.price_gb_out
            + self.reads / 1000 * self.price_1000_reads
            + self.writes / 1000 * self.price_1000_writes
        )

    def rows(self) -> list[list[str]]:
        """What is printed: quantity with its unit, value."""
        found: dict[str, float] = {
            "build: images/s a core": MILLION / self.build_us,
            "build: core hours": self.build_core_hours,
            "build: hours": self.build_hours,
            "build: shards": self.shards,
            "build: shards an hour": self.shards / self.build_hours,
            "build: GB read": self.images * self.source_bytes / 1e9,
            "build: GB written and stored": self.stored_gb,
        }
        if self.gpu_hours:
            rate = self.gpus * self.gpu_images_s
            found |= {
                "training: GPU hours": self.gpu_hours,
                "training: hours": self.gpu_hours / self.gpus,
                "training: GB read from the set": self.passes * self.stored_gb,
                "training: GB/s meanwhile": rate * self.stored_bytes / 1e9,
                "training: cores that decode, if CPUs do": rate * self.loader_us / MILLION,
            }
        found |= {"requests that read a store": self.reads, "requests that write into it": self.writes}
        if self.money:
            found["money, in the unit of the prices"] = self.money
        return [[name, f"{value:,.{0 if value >= 100 else 2}f}"] for name, value in found.items()]


def options_of_work(function: Any) -> Any:
    """Adds an option for each field of ``Work``."""
    for field in reversed(dataclasses.fields(Work)):
        required = field.default is dataclasses.MISSING
        extra: dict[str, Any] = {"required": True} if required else {"default": field.default, "show_default": True}
        kind = int if field.type == "int" else float
        name = f"--{field.name.replace('_', '-')}"
        function = click.option(name, type=kind, help=field.metadata["help"], **extra)(function)
    return function


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@options_of_work
def estimate(**values: Any) -> None:
    """Core hours, GPU hours, bytes, requests and money of a set and of training with it."""
    for name, value in values.items():
        is_divisor = name in ("images", "images_per_shard", "cores", "gpus", "build_us")
        if not math.isfinite(value) or value < 0 or (is_divisor and value == 0):
            expected = f"{value} is not a number {'above 0' if is_divisor else 'from 0'}"
            raise click.BadParameter(expected, param_hint=f"--{name.replace('_', '-')}")
    work = Work(**values)
    print(as_text(Grid(caption=f"{work.images:,.0f} images", header=["", ""], rows=work.rows())))


@main.command()
def limits() -> None:
    """How large everything gets, at the size of VGGFace2, of WebFace42M and of a billion images."""
    print(as_text(limits_grid()))


@main.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Measurements of each size.")
@click.option("--quick", is_flag=True, help="Small sizes, for a rough run in a minute.")
def check(rounds: int, quick: bool) -> None:
    """Measures the rates of this machine, and compares predictions with measurements."""
    with tempfile.TemporaryDirectory(prefix="lrfr-costs-") as folder:
        found = measured(Path(folder), rounds, quick)
    divisor = QUICK if quick else 1
    fitted = [images // divisor for images in FITTED_IMAGES]
    lines = {name: line(fitted, [found[images][name] for images in fitted]) for name in found[fitted[0]]}
    rows = []
    for name, (start, slope) in lines.items():
        for images in (count // divisor for count in PREDICTED_IMAGES):
            said, seen = start + slope * images, found[images][name]
            rows.append([f"{name}, {images:,} images", f"{said:.2f}", f"{seen:.2f}", f"{said / seen:.2f}"])
    caption = f"Predicted from {fitted[0]:,} and {fitted[1]:,} images"
    print(as_text(Grid(caption=caption, header=["", "predicted", "measured", "predicted / measured"], rows=rows)))
    print(
        f"rates of this machine: --build-us {lines[WORKERS][1] * MILLION:.0f} --parent-us {lines[PARENT][1] * MILLION:.0f}"
        f" --start-s {lines[WORKERS][0] / cores():.1f} --loader-us {lines[LOADER][1] * MILLION:.0f}"
        f" --stored-bytes {lines[STORED][1] * MILLION + INDEX_BYTES:.0f}"  # repeated faces have too small an index
    )


def line(sizes: list[int], costs: list[float]) -> tuple[float, float]:
    """Start and slope of the line through two costs; no cost starts below 0."""
    slope = (costs[1] - costs[0]) / (sizes[1] - sizes[0])
    return max(costs[0] - slope * sizes[0], 0.0), slope


if __name__ == "__main__":
    main()
