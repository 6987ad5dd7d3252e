"""The memory that the head's tool calculates is what its processes take."""

from __future__ import annotations

import re

import pytest

from tests.processes import torchrun
from tools.head_memory import calculate, main


def test_memory_of_a_million_identities_on_eight_gpus():
    assert calculate(classes=1_000_000, ranks=8, images=512) == {
        "between steps": 512_000_000,
        "step": 2_048_000_000,
        "save": 4_864_000_000,
        "resume": 4_864_000_000,
    }


@pytest.mark.parametrize(("option", "value"), [("--classes", "0"), ("--ranks", "0"), ("--sample", "nan")])
def test_impossible_inputs_are_refused(monkeypatch, capsys, option, value):
    monkeypatch.setattr("sys.argv", ["head_memory.py", option, value])
    with pytest.raises(SystemExit):
        main()
    error = capsys.readouterr().err
    assert f"argument {option}: " in error
    assert repr(value) in error


@pytest.mark.heavy
@pytest.mark.parametrize("options", [["--classes", 100_000, "--images", 64], ["--classes", 20_000, "--images", 2048]])
def test_processes_take_what_was_calculated(options):
    done = torchrun(2, "tools/head_memory.py", "--measure", *options)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"([a-z ]+?) ([\d,]+) of ([\d,]+) MB", done.stdout)
    assert len(found) == 2 * 4
    figures = [(phase.strip(), *(float(size.replace(",", "")) for size in sizes)) for phase, *sizes in found]
    for phase, measured, calculated in figures:
        if phase == "save":  # rank 0 alone has all rows
            assert measured < calculated + 30
        else:
            assert measured == pytest.approx(calculated, rel=0.12, abs=20)
    assert max(measured for phase, measured, _ in figures if phase == "save") > 100
