"""The script that compares sequential order with random order."""

from __future__ import annotations

import sys

import numpy as np

from pipeline.load.sampler import Draw
from tools import order_cost
from tools.order_cost import Seen, generated, main, pairs_in_shards


def test_what_is_drawn_is_counted():
    index = generated(40, 4, 2)
    index.count, index.first = np.array([3, 2]), np.array([0, 3])
    index.label, index.labels = np.array([0, 0, 0, 1, 1]), np.array([0, 1])
    index.shard, index.manifest.shards = np.array([0, 0, 1, 1, 1]), 2
    seen = Seen(index)
    shares = {"flips": np.zeros((2, 2), bool), "size_draws": np.zeros((2, 2), np.uint64)}
    seen.add(Draw(classes=np.array([0, 1]), rows=np.array([[0, 3], [2, 3]]), **shares))
    seen.add(Draw(classes=np.array([0, 1]), rows=np.array([[1, 3], [2, 4]]), **shares))
    rows = seen.rows()
    assert rows["images seen at least once"] == "100.0%"
    assert rows["images seen once, of those seen"] == "60.0%"
    assert rows["most often seen image"] == "3 times"
    assert rows["slots with a photograph twice"] == "25.0%"
    assert rows["pairs of an identity that have met"] == "75.00%"  # all but the first two images of the first one
    assert rows["shards in a batch"] == "2.0"
    assert pairs_in_shards(index) == 2 / 4


def test_the_script_prints_a_table(monkeypatch, capsys):
    monkeypatch.setattr(order_cost, "SHARD_IMAGES", 100)
    words = ["--images", "2000", "--identities", "50", "--batch-size", "8", "--window", "5"]
    monkeypatch.setattr(sys, "argv", ["order_cost.py", *words])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("identities in 20 shards; 8 identities with 4 views, windows of 5 shards")
    cells = {name.strip(): (random, sequential) for _, name, random, sequential, _ in (x.split("|") for x in lines[4:])}
    assert cells["slots with a photograph twice"][1].strip() == "0.0%"
    assert (
        float(cells["images seen at least once"][1].strip(" %"))
        > 95
        > 70
        > float(cells["images seen at least once"][0].strip(" %"))
    )
    assert float(cells["shards in a batch"][1]) <= 5 < float(cells["shards in a batch"][0])
    assert cells["batches"][0] == cells["batches"][1]
