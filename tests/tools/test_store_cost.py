"""tools/store_cost.py runs, and its contenders do the same work."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import PATIENCE_S, REPOSITORY


@pytest.mark.heavy
def test_every_contender_gets_a_row():
    words = ["tools/store_cost.py", "--images", "5200", "--shards", "3", "--rounds", "1"]
    process = subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert process.returncode == 0, process.stderr
    rows = [line for line in process.stdout.splitlines() if "/s" in line]
    names = ["plain copy", "cold cache", "cold start", "loader, folder", "loader, cache"]
    assert [line.startswith(name) for line, name in zip(rows, names, strict=True)] == [True] * 5
