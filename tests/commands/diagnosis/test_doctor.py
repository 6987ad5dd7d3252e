"""The page as a user sees it: every section, exit codes, broken libraries, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from commands.diagnosis import findings
from tests.processes import PATIENCE_S, REPOSITORY, error_of

DATA_SETS = ("LFW", "QMUL-SurvFace", "SCface", "TinyFace", "VGGFace2", "XQLFW")


def test_a_healthy_machine_with_every_data_set(run, probed, demo):
    process = run("doctor")
    assert process.returncode == 0, process.stdout + process.stderr
    page = process.stdout.splitlines()
    titles = [line for line in page if line and not line.startswith(" ")]
    assert [f"{name} in {demo / name}" for name in DATA_SETS] == titles[7:13]
    assert process.stdout.count("generated faces of demo-data") == 6
    assert "FAIL" not in process.stdout
    assert {path.name for path in demo.iterdir()} == set(DATA_SETS)  # nothing was written


def test_long_findings_are_wrapped_and_remedies_are_not(monkeypatch):
    monkeypatch.setattr(findings, "WIDTH", 40)
    page = list(findings.lines(findings.warn("one " * 20 + "z" * 50, "command " * 20)))
    assert len(page) == 5
    assert max(map(len, page[:3])) <= 40
    assert page[3] == " " * 7 + "z" * 50
    assert page[4] == " " * 7 + "-> " + "command " * 20


def test_a_root_that_is_one_data_set(run, probed, demo):
    process = run("doctor", demo / "SCface")
    assert f"SCface in {demo / 'SCface'}" in process.stdout
    assert f"not found in {demo / 'SCface'}: VGGFace2, LFW, XQLFW, QMUL-SurvFace, TinyFace" in " ".join(
        process.stdout.split()
    )


def test_a_failure_exits_1_and_the_page_goes_on(run, probed, demo):
    (demo / "LFW" / "pairs.txt").write_text("nonsense")
    process = run("doctor")
    assert error_of_page(process) == "Error: something cannot work: see FAIL above"
    assert "FAIL bench lfw cannot run:" in process.stdout
    assert "-> restore it from the archive" in process.stdout
    assert "1 failure, " in process.stdout
    assert f"XQLFW in {demo / 'XQLFW'}" in process.stdout


def error_of_page(process):
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    return process.stderr.splitlines()[-1]


def test_a_folder_that_is_not_there(run, probed, tmp_path):
    process = run("doctor", tmp_path / "nowhere")
    assert "FAIL" in process.stdout
    assert "nowhere: not a folder" in process.stdout
    assert process.returncode == 1


def test_a_fresh_clone_has_no_data_and_that_is_no_failure(run, probed, tmp_path, monkeypatch):
    monkeypatch.setenv("LRFR_DATA", str(tmp_path / "data"))
    process = run("doctor")
    assert process.returncode == 0
    assert f"note {tmp_path}/data: not a folder" in process.stdout
    assert "demo-data" in process.stdout


def test_commands_to_copy_stay_in_one_line(run, probed, tmp_path):
    folder = tmp_path / "a folder with a name that is long" / ("x" * 60)
    (folder / "n1").mkdir(parents=True)
    (folder / "n1" / "1.jpg").write_bytes(b"x")
    process = run("doctor", folder)
    (line,) = (line for line in process.stdout.splitlines() if "--landmarks auto" in line)
    assert line.startswith(f"       -> lrfr build-shards --source folder --root '{folder}' --landmarks auto")


def test_an_empty_folder_is_no_failure(run, probed, tmp_path):
    process = run("doctor")
    assert process.returncode == 0
    assert "docs/guide/prepare.md says where they come from" in process.stdout


def test_torch_and_dali_that_do_not_import_do_not_stop_the_page(run, probed, demo):
    probed(torch="ImportError: libcudart.so.13: no such file", dali="its import ends the process by signal 4")
    process = run("doctor")
    assert "FAIL PyTorch: ImportError: libcudart.so.13" in process.stdout
    assert "its import ends the process by signal 4" in process.stdout
    assert "bench lfw: 40 pairs" in process.stdout
    assert "2 failures" in process.stdout
    assert process.returncode == 1


def test_data_are_left_alone_if_their_reader_is_broken(run, probed, demo):
    probed(cv2="ImportError: libGL.so.1: cannot open shared object file")
    process = run("doctor")
    assert "-> apt-get install libgl1" in process.stdout
    assert "were not looked at" in process.stdout
    assert "bench lfw" not in process.stdout


def test_json(run, probed, demo, tmp_path):
    assert run("doctor", "--json", tmp_path / "found.json").returncode == 0
    sections = json.loads((tmp_path / "found.json").read_text())
    assert [section["section"] for section in sections][:3] == ["Python", "PyTorch", "DALI"]
    findings = [finding for section in sections for finding in section["findings"]]
    assert {finding["level"] for finding in findings} >= {"ok", "note"}
    assert all(set(finding) == {"level", "text", "remedy"} for finding in findings)


def test_names_are_escaped(run, probed, demo):
    (demo / "VGGFace2" / "train" / "n\x1b[31m").mkdir()
    process = run("doctor")
    assert "\x1b" not in process.stdout
    assert r"n\x1b[31m" in process.stdout


def test_url_in_place_of_a_folder(run, probed):
    assert "is a URL" in error_of(run("doctor", "s3://bucket"), 2)


@pytest.mark.heavy
def test_the_real_libraries_without_home(demo):
    words = [sys.executable, str(REPOSITORY / "cli.py"), "doctor"]
    environment = {"LRFR_DATA": str(demo), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    process = subprocess.run(words, env=environment, cwd=demo, capture_output=True, text=True, timeout=PATIENCE_S)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "DALI decodes a JPEG on the CPU" in process.stdout
    assert "  ok   PyTorch " in process.stdout


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["numpy", "pyarrow", "xxhash", "cv2", "scipy", "tqdm"])
def test_the_page_needs_no_library_but_click(demo, tmp_path, name):
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / f"{name}.py").write_text("raise ImportError('it is broken')\n")
    words = [sys.executable, str(REPOSITORY / "cli.py"), "doctor"]
    environment = {"LRFR_DATA": str(demo), "PYTHONPATH": str(tmp_path / "fake")}
    process = subprocess.run(words, env=environment, cwd=demo, capture_output=True, text=True, timeout=PATIENCE_S)
    assert error_of_page(process) == "Error: something cannot work: see FAIL above"
    assert "ImportError: it is broken" in process.stdout
    assert "were not looked at: a library that reads them does not work" in " ".join(process.stdout.split())


@pytest.mark.heavy
def test_libraries_that_break(demo, tmp_path):
    (tmp_path / "fake" / "nvidia" / "dali").mkdir(parents=True)
    (tmp_path / "fake" / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')\n")
    (tmp_path / "fake" / "nvidia" / "__init__.py").touch()
    (tmp_path / "fake" / "nvidia" / "dali" / "__init__.py").write_text("import os\nos.kill(os.getpid(), 4)\n")
    words = [sys.executable, str(REPOSITORY / "cli.py"), "doctor"]
    environment = {"LRFR_DATA": str(demo), "PYTHONPATH": str(tmp_path / "fake")}
    process = subprocess.run(words, env=environment, cwd=demo, capture_output=True, text=True, timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "FAIL PyTorch: ImportError: libcudart.so.13: cannot open" in process.stdout
    assert "its import ends the process by signal 4" in process.stdout
    assert "bench lfw: 40 pairs" in process.stdout
