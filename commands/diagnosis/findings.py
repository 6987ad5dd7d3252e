"""Findings: what was seen, how bad it is, and what to do."""

from __future__ import annotations

import dataclasses
import enum
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from shards.messages import counted, printable

WIDTH = 112


class Level(enum.Enum):
    """How bad a finding is. ``FAIL``: something cannot work."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    FAIL = "FAIL"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the page, and what to do about it."""

    level: Level
    text: str
    remedy: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page. Its findings are found while they are read."""

    title: str
    findings: Iterable[Finding]


def ok(text: str) -> Finding:
    return Finding(Level.OK, text)


def note(text: str, remedy: str = "") -> Finding:
    return Finding(Level.NOTE, text, remedy)


def warn(text: str, remedy: str) -> Finding:
    return Finding(Level.WARN, text, remedy)


def fail(text: str, remedy: str) -> Finding:
    return Finding(Level.FAIL, text, remedy)


def lines(finding: Finding) -> Iterator[str]:
    """The lines of a finding on the page. The remedy stays whole: it may be a command to copy."""
    start = f"  {finding.level.value:<5}"
    yield from textwrap.wrap(
        printable(finding.text),
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
    if finding.remedy:
        yield f"{' ' * len(start)}-> {printable(finding.remedy)}"


def summary(levels: Iterable[Level]) -> str:
    """The last line of the page."""
    levels = list(levels)
    failures, warnings = levels.count(Level.FAIL), levels.count(Level.WARN)
    if not (failures or warnings):
        return "nothing is wrong"
    return f"{counted(failures, 'failure')}, {counted(warnings, 'warning')}"


def to_dict(title: str, findings: Iterable[Finding]) -> dict[str, Any]:
    """A section as plain values."""
    return {
        "section": title,
        "findings": [{"level": one.level.value, "text": one.text, "remedy": one.remedy} for one in findings],
    }
