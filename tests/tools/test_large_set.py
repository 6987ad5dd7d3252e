"""The script that plans, finishes and opens a set of millions of images, at a small size."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from shards.index import ShardIndex
from tests.processes import REPOSITORY
from tools.large_set import main


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_set_of_rows_alone_is_planned_finished_and_opened(tmp_path, kind):
    words = [
        sys.executable,
        REPOSITORY / "tools" / "large_set.py",
        tmp_path / "large",
        "--rows",
        "3000",
        "--kind",
        kind,
    ]
    process = subprocess.run([*words, "--identities", "150"], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    for what in (
        "plan",
        "tasks of all shards",
        "index and manifest",
        "first opening",
        "2 processes that open it at once",
    ):
        assert what in process.stdout
    index = ShardIndex(tmp_path / "large" / "set")
    assert 2900 < len(index) < 3000
    assert len(index.labels) == 150


def test_a_folder_that_cannot_be_made_is_one_line():
    result = CliRunner().invoke(main, ["/proc/large"])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        "Error: Invalid value for FOLDER: /proc/large cannot be made: No such file or directory",
    )
