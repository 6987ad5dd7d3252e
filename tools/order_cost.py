#!/usr/bin/env python3
"""Compares the sampling of sequential and random order: which images and identities meet, and how often.

    python tools/order_cost.py SHARDS [--batch-size 32] [--window 4]
    python tools/order_cost.py --images 3141890 --identities 9131 [--group 4] [--batch-size 512] [--window 16]

Draws the batches of one epoch of sequential order, and as many of random order, from a shard set or from the index of a
generated one, and prints a table in Markdown. No image is read.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.build.groups import grouped_shards
from pipeline.load.sampler import Draw, LoaderState, Sampler
from pipeline.load.sequential import sampler_of
from shards.errors import LrfrError
from shards.index import ShardIndex
from tools.arguments import positive

SHARD_IMAGES = 5000  # of a generated set, as build-shards makes them
SPREAD = 0.5  # of the logarithm of the images of an identity
STRETCH = 100  # steps
RANKS = 8
PAIRS = 1000  # identities whose pairs of images are followed, or counted at a time
MANY_STEPS = 1 << 40


def generated(images: int, identities: int, group: int) -> Any:
    """What a sampler sees of the index of a set whose identities have lognormal numbers of images."""
    weights = np.random.default_rng(0).lognormal(0, SPREAD, identities)
    count = np.maximum((weights * images / weights.sum()).astype(np.int64), 1)
    label = np.repeat(np.arange(identities, dtype=np.int32), count)
    parts = grouped_shards(
        label, np.arange(len(label), dtype=np.int32), group=group, shards=-(-len(label) // SHARD_IMAGES), seed=0
    )
    shard = np.empty(len(label), np.int32)
    for number, part in enumerate(parts):
        shard[part] = number
    labels = np.arange(identities, dtype=np.int32)
    manifest = SimpleNamespace(shards=len(parts), index_digest="generated")
    columns = {"label": label, "shard": shard, "labels": labels, "first": np.cumsum(count) - count, "count": count}
    return SimpleNamespace(**columns, manifest=manifest)


class Seen:
    """Counts what is drawn.

    Attributes:
        used: (N,) how often each image was drawn.
        slots: (I,) how often each identity was.
        doubled: slots that show a photograph in two views, of identities with enough of them.
        shards: mean number in a batch.
        rank_shards: mean number in the slice of the first of ``RANKS`` processes.
        stretches: identities in each ``STRETCH`` steps.
        met: pairs of images that were drawn for one slot, of some identities.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self.used, self.slots = np.zeros(len(index.label), np.int32), np.zeros(len(index.labels), np.int64)
        self.doubled, self.shards, self.rank_shards, self.steps = 0, 0.0, 0.0, 0
        self.stretches: list[int] = []
        self.met: set[tuple[int, int]] = set()
        self._recent: list[np.ndarray] = []
        self.followed = np.random.default_rng(1).permutation(len(index.labels))[:PAIRS]

    def add(self, draw: Draw) -> None:
        """Counts a global batch."""
        views, batch = draw.rows.shape
        np.add.at(self.used, draw.rows.ravel(), 1)
        self.slots[draw.classes] += 1  # identities of a batch are distinct
        rows = np.sort(draw.rows, axis=0)
        enough = self._index.count[draw.classes] >= views
        self.doubled += int(np.count_nonzero((rows[1:] == rows[:-1]).any(0) & enough))
        shard = self._index.shard[draw.rows]
        self.shards += len(np.unique(shard))
        self.rank_shards += len(np.unique(shard[:, : max(batch // RANKS, 1)]))
        self.steps += 1
        for slot in np.flatnonzero(np.isin(draw.classes, self.followed)).tolist():
            images = np.unique(rows[:, slot]).tolist()
            self.met |= {(one, other) for one in images for other in images if one < other}
        self._recent.append(draw.classes)
        if len(self._recent) == STRETCH:
            self.stretches.append(len(np.unique(np.concatenate(self._recent))))
            self._recent.clear()

    def pairs_met(self) -> float:
        """The share of the pairs of images of the followed identities that have met."""
        counts = self._index.count[self.followed]
        return len(self.met) / max(int((counts * (counts - 1) // 2).sum()), 1)

    def rows(self) -> dict[str, str]:
        """What the table says."""
        drawn, used = int(self.used.sum()), self.used > 0
        most = np.sort(self.slots)[::-1]
        slots = int(self.slots.sum())
        return {
            "batches": f"{self.steps:,}",
            "images drawn": f"{drawn:,}",
            "images seen at least once": f"{used.mean():.1%}",
            "images seen once, of those seen": f"{np.mean(self.used[used] == 1):.1%}",
            "most often seen image": f"{self.used.max():,} times",
            "slots with a photograph twice": f"{self.doubled / slots:.1%}",
            "pairs of an identity that have met": f"{self.pairs_met():.2%}",
            f"identities in {STRETCH} steps": f"{np.mean(self.stretches):,.0f}" if self.stretches else "-",
            "share of the tenth of identities seen most": f"{most[: max(len(most) // 10, 1)].sum() / slots:.1%}",
            "shards in a batch": f"{self.shards / self.steps:,.1f}",
            f"shards in a batch, one of {RANKS} processes": f"{self.rank_shards / self.steps:,.1f}",
        }


def pairs_in_shards(index: Any) -> float:
    """The share of the pairs of images of an identity that are in one shard."""
    together, pairs = 0, int((index.count * (index.count - 1) // 2).sum())
    for label in range(0, len(index.labels), PAIRS):
        first, last = label, min(label + PAIRS, len(index.labels)) - 1
        rows = slice(index.first[first], index.first[last] + index.count[last])
        key = index.label[rows].astype(np.int64) * index.manifest.shards + index.shard[rows]
        sizes = np.unique(key, return_counts=True)[1]
        together += int((sizes * (sizes - 1) // 2).sum())
    return together / max(pairs, 1)


def measure(index: Any, state: LoaderState, steps: int | None) -> tuple[dict[str, str], int]:
    """Draws ``steps`` batches, or one epoch; returns the rows of the table, and the number of batches."""
    begun = time.process_time()
    sampler: Sampler = sampler_of(index, state, rank=0, world_size=1)
    opened = time.process_time() - begun
    epoch = sampler.steps(0, MANY_STEPS)
    seen, seconds, at = Seen(index), 0.0, state
    for _ in range(epoch if steps is None else steps):
        begun = time.process_time()
        draw, at = sampler.draw(at.epoch, at.step), sampler.after(at)
        seconds += time.process_time() - begun
        seen.add(draw)
    costs = {"batches of an epoch": f"{epoch:,}", "CPU ms to draw a batch": f"{1e3 * seconds / seen.steps:.2f}"}
    return seen.rows() | costs | {"CPU s to open": f"{opened:.2f}"}, seen.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="?", type=Path, help="shard set; otherwise --images and --identities")
    parser.add_argument("--images", type=positive, default=3_141_890)
    parser.add_argument("--identities", type=positive, default=9131)
    for name, default in (("group", 4), ("batch-size", 512), ("views", 4), ("window", 16)):
        parser.add_argument(f"--{name}", type=positive, default=default)
    given = parser.parse_args()
    index = ShardIndex(given.shards) if given.shards else generated(given.images, given.identities, given.group)
    digest = index.manifest.index_digest
    settled = {"seed": 0, "global_batch": given.batch_size, "views": given.views, "index_digest": digest}
    sequential, steps = measure(index, LoaderState(**settled, window=given.window), None)
    random, _ = measure(index, LoaderState(**settled), steps)
    meeting = "pairs of an identity that can ever meet"
    random[meeting], sequential[meeting] = "100%", f"{pairs_in_shards(index):.2%}"
    images, identities, shards = len(index.label), len(index.labels), index.manifest.shards
    print(f"{images:,} images of {identities:,} identities in {shards:,} shards;", end=" ")
    print(f"{given.batch_size} identities with {given.views} views, windows of {given.window} shards\n")
    print("| | random | sequential |\n|---|--:|--:|")
    for name, value in sequential.items():
        print(f"| {name} | {random[name]} | {value} |")


if __name__ == "__main__":
    try:
        main()
    except LrfrError as error:
        sys.exit(f"Error: {error}")
