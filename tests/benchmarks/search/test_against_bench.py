"""A search of TinyFace's gallery for its probes ranks them as the benchmark does."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.engine.identities import ImageRows
from benchmarks.engine.parquet_writer import embed_images
from benchmarks.engine.runner import Engine
from benchmarks.search.run import search_tables
from pipeline.sources.folders import find_images
from tests.benchmarks.runs import Noisy, score

METADATA = {"digest": "d", "preprocessing": "{}"}


def test_ranks_are_those_of_the_benchmark(demo, tmp_path):
    root = demo("TinyFace")
    expected = score("tinyface", root, Noisy(60)).settings["{}"].ranks
    tables = []
    for folders in (["Gallery_Match", "Gallery_Distractor"], ["Probe"]):
        images = find_images([root / "Testing_Set" / folder for folder in folders]).paths
        tables.append(tmp_path / f"{folders[0]}.parquet")
        embed_images(Engine(embed=Noisy(60)), images, tables[-1], rows=ImageRows("prefix"), metadata=METADATA)
    search_tables(*tables, tmp_path / "m.parquet", top=1000)
    found = pd.read_parquet(tmp_path / "m.parquet")
    mates = found[found["identity"] == found["probe_identity"]]
    ranks = mates.groupby("probe")["rank"].min()
    assert sorted(ranks) == sorted(expected)
    assert len(np.unique(expected)) > 3
