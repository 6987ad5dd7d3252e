#!/usr/bin/env python3
"""Measures the effect of giving a teacher stored crops of another template instead of the photographs.

    python cli.py build-shards --root /faces/VGGFace2 --min-images 3 --out stored
    python cli.py build-shards --root /faces/VGGFace2 --min-images 3 --template arcface --size 112 --out direct
    python tools/reframing.py stored direct --network teacher.onnx

Both shard sets are of the same photographs; DIRECT has the template and size of the network. Prints cosines between the
embeddings of both crops of an image, and equal error rates over all pairs of images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this is a script of the repository, not a package

from benchmarks.engine.runner import Embed, Engine
from benchmarks.engine.shard_set import set_requests
from benchmarks.scoring.metrics import RocSamples
from benchmarks.scoring.vectors import unit_length
from model.embedder import Embedder
from model.formats.network import load_network
from pipeline.progress import Progress
from pipeline.spec import Preprocessing
from shards.index import ShardIndex
from shards.schema import INDEX, INDEX_SCHEMA
from shards.tables import read_table


def compare(stored: Path, direct: Path, embed: Embed, spec: Preprocessing, images: int) -> str:
    """A line with both cosines and equal error rates."""
    sets = [ShardIndex(stored), ShardIndex(direct)]
    keys = [read_table(index.root / INDEX, pa.schema([INDEX_SCHEMA.field("key")]))[0].to_pylist() for index in sets]
    common = sorted(set(keys[0]) & set(keys[1]))
    common = common[:: max(len(common) // images, 1)]
    rows = [np.array([place[key] for key in common]) for place in ({k: i for i, k in enumerate(each)} for each in keys)]
    engine = Engine(embed=embed, spec=spec)
    with Progress("embed", 2 * len(common)) as progress:
        found = [
            engine.embed_all(set_requests(index, chosen, spec), progress)
            for index, chosen in zip(sets, rows, strict=True)
        ]
    vectors = [unit_length(each.vectors) for each in found]
    people = sets[0].label[rows[0]]
    pairs = np.triu_indices(len(common), 1)
    genuine = people[pairs[0]] == people[pairs[1]]
    curves = [RocSamples((each @ each.T)[pairs], genuine).curve() for each in vectors]
    rates = ["unknown" if curve is None else f"{curve.eer:.2%}" for curve in curves]
    cosines = (vectors[0] * vectors[1]).sum(1)
    return (
        f"{len(common):,} images of {len(set(people.tolist())):,} people: mean cosine {cosines.mean():.4f}, least"
        f" {cosines.min():.3f}; equal error rate {rates[1]} from photographs, {rates[0]} from stored crops"
    )


@click.command(help=__doc__)
@click.argument("stored", type=click.Path(path_type=Path))
@click.argument("direct", type=click.Path(path_type=Path))
@click.option("--network", required=True, help="Any that --network of bench takes.")
@click.option("--images", type=click.IntRange(min=2), default=1000, show_default=True, help="Images to compare.")
def main(stored: Path, direct: Path, network: str, images: int) -> None:
    loaded = load_network(network)
    spec = loaded.spec
    embed = Embedder(loaded.backbone, mean=spec.mean, std=spec.std, color=spec.color, flip="mean")
    print(compare(stored, direct, embed, spec, images))


if __name__ == "__main__":
    main()
