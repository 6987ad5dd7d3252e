"""Options of scripts: a number that makes no sense is one line."""

from __future__ import annotations

import sys

import pytest

from tools import head_memory, order_cost


@pytest.mark.parametrize("words", [["--ranks", "0"], ["--classes", "-1"], ["--images", "1.5"]])
def test_numbers_are_whole_and_positive(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["head_memory.py", *words])
    with pytest.raises(SystemExit):
        head_memory.main()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"head_memory.py: error: argument {words[0]}: '{words[1]}' is not a whole number above 0"


def test_a_window_without_shards_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["order_cost.py", "--window", "0"])
    with pytest.raises(SystemExit):
        order_cost.main()
    assert capsys.readouterr().err.endswith("argument --window: '0' is not a whole number above 0\n")
