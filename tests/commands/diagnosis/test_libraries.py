"""Findings about libraries and foreign packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from commands.diagnosis import libraries
from commands.diagnosis.libraries import (
    OURS,
    ProbeError,
    Probes,
    dali_findings,
    opencv_findings,
    other_findings,
    python_findings,
    torch_findings,
)
from shards.messages import command
from tests.commands.diagnosis.probes import HEALTHY, FakeProbes, of

DALI_ERROR = """Critical error in pipeline:
Error in MIXED operator `nvidia.dali.fn.decoders.image`,
encountered:

no nvJPEG
Current pipeline object is no longer valid."""


def probe_of(code):
    words = [sys.executable, "-c", code]
    return Probes({"x": subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)})


def test_a_probe_prints_facts():
    assert probe_of("print('noise'); print('{\"a\": 1}')").facts("x") == {"a": 1}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('no x')", "ImportError: no x"),
        ("import os; os.kill(os.getpid(), 11)", "its import ends the process by signal 11"),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('no json')", "exit code 0"),
    ],
)
def test_a_probe_that_fails(code, reason):
    with pytest.raises(ProbeError) as caught:
        probe_of(code).facts("x")
    assert str(caught.value) == reason


def test_a_probe_that_hangs(monkeypatch):
    monkeypatch.setattr(libraries, "PROBE_S", 0.01)
    probes = probe_of("import time; time.sleep(3600)")
    with pytest.raises(ProbeError, match="does not finish"):
        probes.facts("x")
    probes.processes["x"].kill()
    probes.processes["x"].communicate()


def test_this_environment():
    found = list(python_findings())
    assert of(found, "FAIL") == []
    assert any(text.startswith("lrfr in ") for text in of(found, "ok"))


def test_packages_of_ours_that_others_bring(monkeypatch):
    """PyPI has a package called pipeline, whose installation overwrites ours and whose removal deletes it."""
    monkeypatch.setattr(libraries, "owners_of_packages", lambda: {"pipeline": ["lrfr", "click"]})
    (text,) = of(python_findings(), "FAIL")
    assert re.fullmatch(r"the distribution click \S+ also installs a package called pipeline", text)


def test_a_file_that_hides_a_package_of_ours(tmp_path, monkeypatch):
    (tmp_path / "model.py").touch()
    real = libraries.importlib.util.find_spec

    def find_spec(name):
        return (
            libraries.importlib.util.spec_from_file_location(name, tmp_path / "model.py")
            if name == "model"
            else real(name)
        )

    monkeypatch.setattr(libraries.importlib.util, "find_spec", find_spec)
    (text,) = of(python_findings(), "FAIL")
    assert text.startswith("the package model is taken from ")
    assert "model" in OURS


def test_old_and_missing_libraries(monkeypatch):
    monkeypatch.setattr(
        libraries, "_lower_bounds", lambda: [("numpy", "99.0"), ("no-such-library", "1.0"), ("click", "8.0")]
    )
    assert [text.partition(" ")[0] for text in of(python_findings(), "FAIL")] == ["numpy", "no-such-library"]


def test_every_requirement_has_a_bound():
    found = dict(libraries._lower_bounds())
    assert len(found) >= 14
    assert found["numpy"].startswith("2")


@pytest.mark.parametrize(
    ("facts", "driver", "level", "text"),
    [
        ({}, False, "note", "no GPU: commands run on the CPU"),
        ({}, True, "warn", "a GPU driver is loaded, but PyTorch is the CPU build"),
        ({"cuda": "13.0", "gpus": ["H200"]}, True, "ok", "GPU: H200"),
        ({"cuda": "13.0", "gpu_error": "driver too old"}, True, "warn", "PyTorch finds no GPU: driver too old"),
        ({"cuda": "13.0", "gpu_error": "no NVIDIA driver"}, False, "note", "PyTorch finds no GPU: no NVIDIA driver"),
    ],
)
def test_gpus(monkeypatch, facts, driver, level, text):
    monkeypatch.setattr(libraries, "_has_driver", lambda: driver)
    assert text in of(torch_findings(FakeProbes(torch=HEALTHY["torch"] | facts)), level)


def test_dali(monkeypatch):
    found = list(dali_findings(FakeProbes(dali={**HEALTHY["dali"], "mixed_error": DALI_ERROR})))
    assert of(found, "FAIL") == ["DALI does not decode a JPEG on the GPU: no nvJPEG"]
    monkeypatch.setattr(libraries, "_dali", lambda: ["nvidia-dali-cuda120", "nvidia-dali-cuda130"])
    assert of(dali_findings(FakeProbes()), "warn") == [
        "nvidia-dali-cuda120 and nvidia-dali-cuda130 overwrite each other"
    ]


def test_two_opencvs(monkeypatch):
    owners = {"cv2": ["opencv-python-headless", "opencv-contrib-python"]}
    monkeypatch.setattr(libraries, "owners_of_packages", lambda: owners)
    found = [finding for finding in opencv_findings(FakeProbes()) if finding.level.value == "warn"]
    assert found[0].text.startswith("cv2 belongs to opencv-contrib-python and opencv-python-headless")
    assert found[0].remedy.startswith("pip uninstall opencv-contrib-python, then")


def test_an_opencv_that_decodes_nothing():
    assert of(opencv_findings(FakeProbes(cv2={**HEALTHY["cv2"], "decodes": False})), "FAIL")


def test_landmarks(tmp_path):
    (text,) = of(other_findings(FakeProbes(litert="ModuleNotFoundError: no litert"), tmp_path), "note")
    assert text == "landmarks cannot run: ModuleNotFoundError: no litert"
    *_, found = other_findings(FakeProbes(), tmp_path)
    path = tmp_path / "models" / "face_landmarker.task"
    assert (found.level.value, found.text) == ("note", f"LiteRT imports; {path}: no landmark model")
    assert found.remedy == f"{command('fetch', 'landmarker')}, or give --model PATH to landmarks"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "face_landmarker.task").write_text("x")
    assert of(other_findings(FakeProbes(), tmp_path), "warn")


def test_the_cheap_probes_of_this_environment():
    from commands.diagnosis import probe

    assert probe.cv2()["decodes"]
    assert json.dumps(probe.others()) == "{}"
