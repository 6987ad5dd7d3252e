"""Generated data sets to damage, and probes of libraries that say what a test wants."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from commands.diagnosis import findings, libraries
from pipeline.demo.generate import write_demo_data
from tests.commands.diagnosis.probes import FakeProbes


@pytest.fixture(autouse=True)
def _long_lines():
    """No line is wrapped, however long the path of the test's folder is."""
    with pytest.MonkeyPatch.context() as patch:  # the tests' own ends before their folder is deleted
        patch.setattr(findings, "WIDTH", 10_000)
        yield


@pytest.fixture
def probed(monkeypatch):
    """``probed(torch="no such file")`` sets what the probes say; without a call they are healthy."""

    def change(**changes):
        monkeypatch.setattr(libraries, "started_probes", lambda: contextlib.nullcontext(FakeProbes(**changes)))

    change()
    return change


@pytest.fixture(scope="session")
def _demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    write_demo_data(out, identities=4, images=2, seed=0)
    return out


@pytest.fixture
def demo(_demo, tmp_path):
    """Every data set of generated faces in ``tmp_path``, a copy that a test may damage."""
    return Path(shutil.copytree(_demo, tmp_path, dirs_exist_ok=True))
