"""Installing the package, from a checkout."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands.diagnosis import libraries
from shards import messages
from shards.messages import install_command
from tests.processes import PATIENCE_S, REPOSITORY

FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "cli.py")
PACKAGES = ("shards", "pipeline", "model", "benchmarks", "commands")


def pip(*words):
    command = [sys.executable, "-m", "pip", *words, "--no-deps", "--no-index", "--no-build-isolation"]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.fixture
def checkout(tmp_path):
    """A copy of what pip reads: it writes into the folder that it installs from."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in FILES:
        shutil.copy(REPOSITORY / name, folder)
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def files(folder):
    return {str(path.relative_to(folder)) for name in PACKAGES for path in (folder / name).rglob("*") if path.is_file()}


@pytest.mark.slow
def test_an_ordinary_install_has_every_file(checkout, tmp_path):
    expected, site = files(checkout), tmp_path / "site"
    process = pip("install", "--no-compile", "--target", str(site), str(checkout))
    assert process.returncode == 0, process.stderr
    assert files(site) == expected
    environment = {**os.environ, "PYTHONPATH": str(site)}
    script = [sys.executable, str(site / "bin" / "lrfr"), "--help"]
    process = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert "build-shards" in process.stdout, process.stderr


@pytest.mark.slow
def test_an_editable_install_works(checkout, tmp_path):
    process = pip("install", "--prefix", str(tmp_path / "prefix"), "--ignore-installed", "--editable", str(checkout))
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "prefix" / "bin" / "lrfr").exists()


def test_the_console_script_works_in_any_folder(tmp_path):
    script = Path(sys.executable).parent / "lrfr"
    process = subprocess.run([script, "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert process.stdout.startswith("lrfr, version "), process.stderr


def test_hints_after_an_ordinary_install_can_work(tmp_path, monkeypatch):
    """There is no setup.cfg beside the packages: what they require is in the metadata of the distribution."""
    assert install_command("export") == shlex.join(["pip", "install", "--editable", f"{REPOSITORY}[export]"])
    of_checkout = dict(libraries._lower_bounds())
    monkeypatch.setattr(messages, "CHECKOUT", tmp_path)
    words = shlex.split(install_command("export"))
    assert words[:2] == ["pip", "install"]
    assert {word.partition(">=")[0] for word in words[2:]} >= {"onnx", "onnxruntime", "onnxscript", "safetensors"}
    assert not {"torch", "boto3", "pytest"} & {word.partition(">=")[0] for word in words}
    required = shlex.split(install_command())[2:]
    assert {word.partition(">=")[0] for word in required} == set(of_checkout)
    assert set(dict(libraries._lower_bounds())) == set(of_checkout)


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
