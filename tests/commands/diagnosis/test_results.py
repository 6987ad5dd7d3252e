"""Shard sets and runs: finished, unfinished, damaged."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from commands.diagnosis.layouts import find_layouts
from commands.diagnosis.results import run_findings, shard_findings
from tests.commands.diagnosis.probes import of
from tests.shard_sets import flip_bit


def test_a_finished_set(shard_set):
    assert dict(find_layouts(shard_set.parent))["shard set"] == shard_set
    (text,) = of(shard_findings([shard_set]), "ok")
    assert text == f"{shard_set}: finished, 45 images of 9 people in 4 shards, from vggface2"


def test_the_newest_set_counts(shard_set):
    other = shutil.copytree(shard_set, shard_set.with_name("older"))
    os.utime(other / "manifest.json", (1, 1))
    os.utime(other / "plan.json", (1, 1))
    assert of(shard_findings([other, shard_set]), "note") == [f"2 shard sets; the newest, {shard_set}, is looked at"]


def test_an_unfinished_set(shard_set):
    (shard_set / "manifest.json").unlink()
    assert of(shard_findings([shard_set]), "warn") == [f"{shard_set}: unfinished, 4 shards done"]


def test_damaged_sets(shard_set):
    for shard in range(4):
        flip_bit(shard_set / f"shard-{shard:06d}.idx", 20)
    texts = of(shard_findings([shard_set]), "FAIL")
    assert len(texts) == 4
    assert texts[-1] == "and 1 other problem"
    flip_bit(shard_set / "manifest.json", 30)
    assert "damaged" in of(shard_findings([shard_set]), "FAIL")[0]


@pytest.fixture
def finished(tmp_path):
    folder = tmp_path / "runs" / "a"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "0000007.pt").write_bytes(b"x")
    (folder / "config.json").write_text(json.dumps({"steps": 7}))
    (folder / "metrics.jsonl").write_text('{"step": 6}\n{"step": 7}\n{"st')
    return folder


def test_a_finished_run(finished, tmp_path):
    assert list(find_layouts(tmp_path)) == [("run", finished)]
    assert of(run_findings([finished]), "ok") == [
        f"{finished}: step 7 of 7, finished",
        "newest checkpoint: 0000007.pt",
    ]


def test_the_newest_checkpoint_is_that_of_the_last_step(finished):
    for name in ("10000000.pt", "9999999.pt"):
        (finished / "checkpoints" / name).write_bytes(b"x")
    assert "newest checkpoint: 10000000.pt" in of(run_findings([finished]), "ok")


def test_an_unfinished_run(finished):
    (finished / "config.json").write_text(json.dumps({"steps": 9}))
    assert of(run_findings([finished]), "note") == [f"{finished}: step 7 of 9, not finished or still running"]


@pytest.mark.parametrize("config", ["", "[]", '{"steps": "x"}', "{"])
def test_a_damaged_configuration(finished, config):
    (finished / "config.json").write_text(config)
    assert "config.json is missing or damaged" in of(run_findings([finished]), "warn")[0]


@pytest.mark.parametrize("metrics", ["", "x\n", "[1]\n", "[" * 5000])
def test_damaged_metrics(finished, metrics):
    (finished / "metrics.jsonl").write_text(metrics)
    assert of(run_findings([finished]), "note") == [f"{finished}: step 0 of 7, not finished or still running"]


def test_pipes_are_not_waited_for(finished):
    for name in ("config.json", "metrics.jsonl"):
        (finished / name).unlink()
        os.mkfifo(finished / name)
        if name == "config.json":
            assert "config.json is missing or damaged" in of(run_findings([finished]), "warn")[0]
    with pytest.raises(OSError, match="not a regular file"):
        list(run_findings([finished]))


def test_checkpoints_that_are_none(finished):
    (finished / "checkpoints" / "0000007.pt").write_bytes(b"")
    assert of(run_findings([finished]), "FAIL") == [f"{finished}/checkpoints/0000007.pt: an empty file"]
    (finished / "checkpoints" / "0000007.pt").unlink()
    assert of(run_findings([finished]), "warn") == [f"{finished}: step 7 of 7, no checkpoint"]
