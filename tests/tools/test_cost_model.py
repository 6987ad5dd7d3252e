"""The cost model: its arithmetic by hand, its options, and that a run of it measures what it says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from shards.index import ShardIndex
from tests.processes import REPOSITORY
from tools.cost_model import Work, line, main
from tools.limits import SIZES, Size, facts, row_bytes

PAGE = (REPOSITORY / "docs" / "scale.md").read_text()


def test_a_build_by_hand():
    work = Work(images=3.6e9, cores=100, build_us=1000, parent_us=10, start_s=36, source_bytes=1e4, stored_bytes=5e3)
    assert work.shards == 720_000
    assert work.build_core_hours == pytest.approx(1000 + 10 + 1)
    assert work.build_hours == pytest.approx(10 + 10 + 0.01)  # the plan is made by one core
    assert (work.stored_gb, work.writes, work.reads) == (pytest.approx(18_000), 2_880_000, 3.6e9)
    assert (work.gpu_hours, work.money) == (0, 0)


def test_training_and_money_by_hand():
    work = Work(
        images=1e6,
        images_per_shard=5000,
        passes=36,
        gpu_images_s=1000,
        gpus=8,
        build_us=3600,
        parent_us=0,
        start_s=0,
        stored_bytes=1e4,
        months=2,
        gb_out=3,
        price_core_hour=0.5,
        price_gpu_hour=2,
        price_gb_month=0.1,
        price_gb_out=0.2,
        price_1000_reads=0.001,
        price_1000_writes=0.01,
    )
    assert work.gpu_hours == pytest.approx(10)
    reads, writes = 1e6 + 36 * 200, 800
    assert work.money == pytest.approx(0.5 * 1 + 2 * 10 + 0.1 * 10 * 2 + 0.2 * 3 + reads * 1e-6 + writes * 1e-5)


def test_every_price_counts():
    free = {"images": 1e6, "passes": 1, "gpu_images_s": 100, "months": 1, "gb_out": 1}
    prices = [name for name in Work.__dataclass_fields__ if name.startswith("price_")]
    assert len(prices) == 6
    assert [name for name in prices if Work(**free, **{name: 1.0}).money <= 0] == []
    assert Work(**free).money == 0


def test_estimate_prints_what_it_computes():
    words = [
        "estimate",
        "--images",
        "42e6",
        "--cores",
        "256",
        "--passes",
        "20",
        "--gpus",
        "8",
        "--gpu-images-s",
        "2000",
    ]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    work = Work(images=42e6, cores=256, passes=20, gpus=8, gpu_images_s=2000)
    assert re.search(rf"training: GPU hours +{work.gpu_hours:,.0f}\n", result.output)
    assert re.search(rf"training: hours +{work.gpu_hours / 8:.2f}\n", result.output)
    assert "money" not in result.output
    assert "money" in CliRunner().invoke(main, [*words, "--price-gpu-hour", "2"]).output


@pytest.mark.parametrize(
    "words",
    [
        ["--images", "0"],
        ["--images", "nan"],
        ["--images", "inf"],
        ["--images", "1", "--cores", "0"],
        ["--images", "1", "--build-us", "inf"],
        ["--images", "1", "--price-core-hour", "nan"],
        ["--images", "1", "--parent-us", "-1"],
        [],
    ],
)
def test_impossible_inputs_are_refused(words):
    result = CliRunner().invoke(main, ["estimate", *words])
    assert result.exit_code == 2
    assert "Error: " in result.output


def test_limits_by_hand(shard_set):
    found = facts(Size(images=10_000_000, identities=1_000_000))
    index = ShardIndex(shard_set)
    columns = (index.label, index.shard, index.offset, index.size, index.xxh3)
    assert row_bytes() == sum(column.nbytes for column in columns) / len(index) == 28
    assert found["index in memory, GB (28 bytes a row)"] == 0.28
    assert found["shards of 5,000"] == 2000
    assert found["% of random reads that open a tar, 768 stay open"] == pytest.approx(100 * (1 - 768 / 2000))
    assert found["head, GB: weights, gradient, momentum"] == pytest.approx(6.144)
    assert found["epochs of each identity once in a pass, 4 views"] == 2.5


def test_the_page_shows_what_the_tool_prints():
    printed = CliRunner().invoke(main, ["limits"]).output.strip()
    assert len(printed.splitlines()) > 15
    assert printed in PAGE
    assert len(SIZES) == 3


def test_a_line_through_two_costs():
    assert line([10, 30], [5.0, 9.0]) == (3.0, 0.2)
    assert line([10, 30], [1.0, 9.0]) == (0.0, 0.4)


@pytest.mark.heavy
def test_a_check_measures_and_compares():
    words = [sys.executable, REPOSITORY / "tools" / "cost_model.py", "check", "--quick", "--rounds", "1"]
    process = subprocess.run(words, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    rows = re.findall(r"^(.*), ([\d,]+) images +(\S+) +(\S+) +(\S+)$", process.stdout, re.M)
    assert [row[1] for row in rows] == ["250", "2,500"] * 5
    long = [tuple(map(float, row[2:])) for row in rows if float(row[3]) >= 1]  # others are printed with too few digits
    assert len(long) >= 3
    assert [ratio for _, _, ratio in long] == pytest.approx([said / seen for said, seen, _ in long], abs=0.02)
    sizes = [float(row[4]) for row in rows if row[0] == "set without its index, MB"]
    assert sizes == pytest.approx([1, 1], abs=0.1)
    assert re.search(
        r"--build-us \d+ --parent-us -?\d+ --start-s [\d.]+ --loader-us \d+ --stored-bytes \d+", process.stdout
    )


@pytest.mark.heavy
def test_the_overhead_of_ray_is_measured():
    pytest.importorskip("ray")
    words = [sys.executable, REPOSITORY / "tools" / "executor_cost.py", "--images", "300", "--rounds", "1"]
    process = subprocess.run(words, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    rows = [re.split(r"  +", row) for row in process.stdout.splitlines()[2:5]]
    assert [row[0] for row in rows] == ["process", "ray, a cluster of its own", "ray, a running cluster"]
    assert rows[0][2] == rows[0][5] == rows[0][7] == "1.00"
    assert float(rows[0][-1]) == 0 < float(rows[1][-1])  # daemons
