"""The check of a GPU: its table, what it leaves out, and, on a CPU, some of its parts."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tools import gpu_check
from tools.gpu.machine import _driver, machine
from tools.gpu.parts import PARTS, Settings, Work
from tools.gpu.report import Report, last_line, read_rows, table_of


def settings(folder: Path, **changes) -> Settings:
    plain = {
        "device": "cpu",
        "quick": True,
        "root": "",
        "scratch": str(folder),
        "results": str(folder / "results.jsonl"),
    }
    return Settings(**{**plain, "train_s": 1.0, "networks_s": 0.0, "deadline": time.time() + 600, **changes})


def test_the_table_shows_every_row_and_counts_the_verdicts(tmp_path):
    report = Report(tmp_path / "results.jsonl", "step")
    report.write("card", "H" * 100)
    report.check("equal", True, "yes")
    report.target("images/s", 3.0, least=4.0, text="3 of 4")
    report.target("wait", 0.01, most=0.03, text="1 %")
    report.target("loss", float("nan"), most=1.0, text="nan")
    with report.attempt("broken"):
        raise RuntimeError(
            "first line\nCUDA error: \x1b[31mout of memory\nCompile with `TORCH_USE_CUDA_DSA` to see more\n"
        )
    with open(report.path, "a") as stream:
        stream.write('{"part": "step", "na')  # the process was killed as it wrote
    assert table_of(read_rows(report.path)).splitlines() == [
        "             step: card      " + "H" * 75 + "...",
        "ok           step: equal     yes",
        "NOT reached  step: images/s  3 of 4",
        "reached      step: wait      1 %",
        "NOT reached  step: loss      nan",
        "FAILED       step: broken    CUDA error: [31mout of memory",
        "1 ok, 1 FAILED, 1 reached, 2 NOT reached",
    ]
    assert last_line("\n \n") == ""


def test_targets_are_checked_only_on_a_gpu_in_a_full_run(tmp_path):
    given = settings(tmp_path)
    for at, changes in enumerate(({}, {"quick": False}, {"device": "cuda"}, {"device": "cuda", "quick": False})):
        Work("step", dataclasses.replace(given, **changes)).report.target("images/s", at, least=9.0, text="few")
    assert [row.verdict for row in read_rows(Path(given.results))] == ["", "", "", "NOT reached"]


def test_without_a_gpu_nothing_is_tried_on_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given, log = settings(tmp_path, device="cuda"), tmp_path / "log.txt"
    with pytest.raises(SystemExit, match="nothing else can be found out"):
        machine(Work("machine", given))
    gpu_check.check(["decode", "step"], given, log)
    assert capsys.readouterr().out.splitlines() == [
        "decode: left out, there is no GPU, see machine",
        "step: left out, there is no GPU, see machine",
    ]
    assert not log.exists()


def test_parts_without_time_or_a_gpu_are_left_out(tmp_path, capsys):
    log = tmp_path / "log.txt"
    gpu_check.check(["decode"], settings(tmp_path), log)
    gpu_check.check(["networks"], settings(tmp_path), log)
    gpu_check.check(["step"], settings(tmp_path, deadline=time.time() + 3.5), log)
    assert capsys.readouterr().out.splitlines() == [
        "decode: left out, needs a GPU",
        "networks: left out, --networks-seconds is 0",
        "step: left out, 3 s of the budget are left",
    ]
    assert not log.exists()


def test_a_part_that_the_budget_ends_has_not_failed(tmp_path):
    report = Report(tmp_path / "results.jsonl", "degrade")
    gpu_check.run_part("degrade", settings(tmp_path, deadline=time.time()), tmp_path / "log.txt", 0.05, report)
    (row,) = read_rows(report.path)
    assert (row.verdict, row.value) == ("left out", "the budget ended after 0 s of it")


@pytest.mark.parametrize(("printed", "told"), [("580.1\n580.1\n", "580.1"), ("", "unknown")])
def test_the_driver_of_several_gpus_is_reported_in_one_line(printed, told, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("subprocess.run", lambda words, **how: subprocess.CompletedProcess(words, 0, stdout=printed))
    assert _driver() == f"driver {told}"


def test_chosen_parts_come_in_their_order_with_the_data_that_they_need():
    assert gpu_check.part_names("train,step") == ["data", "step", "train"]
    assert gpu_check.part_names("degrade") == ["degrade"]
    with pytest.raises(gpu_check.argparse.ArgumentTypeError, match="'steps' is unknown; choose from machine,"):
        gpu_check.part_names("steps")


def test_results_are_not_overwritten(tmp_path, capsys):
    (tmp_path / "results.jsonl").touch()
    assert gpu_check.main(["--out", str(tmp_path)]) == 2
    assert "exists: name another --out" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    for name in ("file", "file/folder"):
        assert gpu_check.main(["--out", str(tmp_path / name)]) == 2
        assert f"{tmp_path / name}: " in (error := capsys.readouterr().err)
        assert "name another --out" in error


@pytest.mark.heavy
def test_some_parts_on_a_cpu(tmp_path, capsys):
    words = ["--device", "cpu", "--quick", "--parts", "batch,nccl", "--out", str(tmp_path / "out")]
    assert gpu_check.main(words) == 0
    table = (tmp_path / "out" / "table.txt").read_text()
    assert capsys.readouterr().out.endswith(f"\n{table}")
    rows = read_rows(tmp_path / "out" / "results.jsonl")
    assert {row.part for row in rows} == {"data", "batch", "nccl"}
    assert [row.verdict for row in rows].count("ok") > 10
    assert not {row.verdict for row in rows} - {"ok", ""}
    assert "gloo, one rank" in table


@pytest.mark.heavy
def test_a_part_that_hangs_or_fails_is_a_row_with_its_reason(tmp_path):
    log, report = tmp_path / "log.txt", Report(tmp_path / "results.jsonl", "degrade")
    gpu_check.run_part("degrade", settings(tmp_path), log, 0.05, report)
    gpu_check.run_part("batch", settings(tmp_path), log, 300, report)
    slow, failed = read_rows(report.path)
    assert (slow.verdict, slow.value) == ("FAILED", "not done after 0 s")
    assert failed.verdict == "FAILED"
    assert "shards" in failed.value


def test_every_part_can_be_found():
    for part in PARTS.values():
        module, _, name = part.run.partition(":")
        path = Path(gpu_check.REPOSITORY, *module.split(".")).with_suffix(".py")
        assert f"\ndef {name}(work: Work) -> None:" in path.read_text()


def test_settings_survive_the_command_line(tmp_path):
    given = settings(tmp_path)
    assert Settings(**json.loads(json.dumps(dataclasses.asdict(given)))) == given
