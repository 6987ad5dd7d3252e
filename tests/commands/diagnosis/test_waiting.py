"""Progress of doctor vanishes from the terminal, and short work leaves no lines in a log."""

from __future__ import annotations

import io
import sys

import pytest

from commands.diagnosis import waiting
from commands.diagnosis.waiting import Waiting


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    def use(stream):
        monkeypatch.setattr(sys, "stderr", stream)
        with Waiting("count", 2) as progress:
            progress.update(2)
        return stream.getvalue()

    return use


def test_a_terminal_is_clean_afterwards(screen):
    shown = screen(Terminal())
    assert "count" in shown
    *_, bar, blank, rest = shown.split("\r")
    assert (blank.strip(), rest) == ("", "")
    assert len(blank) >= len(bar) > 10
    assert "\n" not in shown


def test_a_log_reports_long_work_only(screen, monkeypatch):
    assert "2/2" not in screen(io.StringIO())
    monkeypatch.setattr(waiting, "LOG_INTERVAL_S", 0)
    assert "count: 2/2 images" in screen(io.StringIO())
