"""When, by which command and on what machine something was measured."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any


def measurement() -> dict[str, Any]:
    """Date (UTC), command, processor, usable cores and memory of this process, as JSON-serialisable fields."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(sys.argv),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
    }


def processor() -> str:
    """Model of the processor; its architecture if the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _command(words: list[str]) -> str:
    """The command of this process as one would type it again."""
    program = Path(words[0]) if words and words[0] else Path("python")
    called = ["python", str(program)] if program.suffix == ".py" else [program.name]
    return shlex.join([*called, *words[1:]])
