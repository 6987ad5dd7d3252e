"""Installing: editable from a checkout, or not at all."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, REPOSITORY

FILES = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "cli.py")
PACKAGES = ("shards", "pipeline", "model", "benchmarks", "commands")


def pip(*words):
    command = [sys.executable, "-m", "pip", *words, "--no-deps", "--no-index", "--no-build-isolation"]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.fixture
def checkout(tmp_path):
    """The files that pip reads, and empty packages."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in FILES:
        shutil.copy(REPOSITORY / name, folder)
    for name in PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    return folder


@pytest.mark.slow
def test_an_ordinary_install_is_refused(checkout, tmp_path):
    process = pip("install", "--target", str(tmp_path / "site"), str(checkout))
    assert process.returncode == 1
    assert "lrfr runs from its checkout. Install it there with: pip install --editable ." in process.stderr
    assert not (tmp_path / "site").exists()


@pytest.mark.slow
def test_an_editable_install_is_not(checkout, tmp_path):
    process = pip("install", "--prefix", str(tmp_path / "prefix"), "--ignore-installed", "--editable", str(checkout))
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "prefix" / "bin" / "lrfr").exists()


def test_the_console_script_works_in_any_folder(tmp_path):
    script = Path(sys.executable).parent / "lrfr"
    process = subprocess.run([script, "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert process.stdout.startswith("lrfr, version "), process.stderr


def test_packages_are_typed():
    assert [name for name in PACKAGES if not (REPOSITORY / name / "py.typed").exists()] == []


def test_every_requirement_is_pinned():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    required = {line.split(">=")[0].split("[")[0] for text in lists for line in text.split("\n") if line.strip()}
    pins = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in pins)

    def normal(name):
        return name.lower().replace("_", "-").replace(".", "-")

    assert len(required) > 20
    assert {normal(name) for name in required} - {"lrfr"} <= {normal(line.split("==")[0]) for line in pins}
