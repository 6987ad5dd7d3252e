"""The script that injects faults: a sound program survives them, and what a broken one loses is reported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.processes import PATIENCE_S, REPOSITORY
from tools.inject_faults import KINDS_OF_FILE


def python(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder)}
    command = [sys.executable, *map(str, words)]
    streams = {"capture_output": True, "text": True}
    return subprocess.run(command, cwd=folder, env=environment, timeout=PATIENCE_S, **streams)


def rows_of(process):
    """The table: row -> cells; ``-`` is 0."""
    lines = [re.split(r" {2,}", line.strip()) for line in process.stdout.splitlines()[2:]]
    return {name: [int(cell.replace("-", "0")) for cell in cells] for name, *cells in lines}


def assert_survived(process, rows):
    assert process.returncode == 0, process.stderr
    table = rows_of(process)
    assert set(table) == rows
    assert all(sum(cells[:5]) == cells[5] > 0 and cells[6] == 0 for cells in table.values())


BUILD = {f"build-shards: {operation}" for operation in ("open", "write", "fsync", "rename", "mkdir", "unlink")}
TRAIN = {f"train: {operation}" for operation in ("open", "write", "fsync", "rename", "mkdir", "unlink")}
FLIPS = {f"flip: {kind}" for kind in KINDS_OF_FILE}


@pytest.mark.heavy
def test_a_build_survives_faults_and_flips_are_found(tmp_path):
    process = python(tmp_path, REPOSITORY / "tools" / "inject_faults.py", "build", "flips", "--faults", 2)
    assert_survived(process, BUILD | FLIPS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_builds_and_trainings_survive_more_faults(tmp_path):
    process = python(tmp_path, REPOSITORY / "tools" / "inject_faults.py", "--faults", 2, "--seed", 1)
    assert_survived(process, BUILD | TRAIN | FLIPS)


BROKEN = """
import contextlib, os
import shards.files

@contextlib.contextmanager
def whole_file(path, *, replace=True):
    {body}

shards.files.whole_file = whole_file
from tools.inject_faults import main
main(["build", "--faults", "1"])
"""
UNSYNCED = """
    temporary = path.with_name(path.name + ".partial")
    yield temporary
    os.replace(temporary, path)
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("body", "reported"),
    [
        (
            "yield path",
            r"build-shards: write, kill at \d+: \S+ has its final name and is not as it was published",
        ),
        (UNSYNCED, r"build-shards: rename, power at \d+: \S+ has its final name and is not as it was published"),
    ],
    ids=["without a temporary name", "without fsync"],
)
def test_what_a_broken_program_loses_is_reported(tmp_path, body, reported):
    process = python(tmp_path, "-c", BROKEN.format(body=body))
    assert process.returncode == 1
    assert re.search(f"^{reported}$", process.stderr, re.M), process.stderr
    assert sum(cells[6] for cells in rows_of(process).values()) > 0


COUNTED = """
import json, os, shutil
from pathlib import Path
from shards.files import whole_folder, write_bytes
from tools.file_faults import FileFaults

(folder := Path.cwd() / "counted").mkdir()
faults = FileFaults(folder)
faults.install()
write_bytes(folder / "a", b"1")
write_bytes(folder.parent / "elsewhere", b"2")
with whole_folder(folder / "b") as inner:
    with open(inner / "file", "w+", encoding="utf-8") as stream:
        stream.write("text")
(folder / "a").read_bytes()
print(json.dumps(faults.operations))
"""


def test_operations_that_change_files_are_counted(tmp_path):
    process = python(tmp_path, "-c", COUNTED)
    assert process.returncode == 0, process.stderr
    file, folder = "open open write fsync rename fsync", "mkdir mkdir mkdir open write fsync fsync rename fsync unlink"
    assert json.loads(process.stdout) == f"{file} {folder}".split()
    assert (tmp_path / "counted" / "b" / "file").read_text() == "text"
