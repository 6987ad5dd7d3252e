"""Parts of messages: counts with their noun, and commands to run next."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path


def counted(number: int, noun: str) -> str:
    """Formats a count: ``1 identity``, ``2,345 identities``."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The plural of a regular English noun."""
    noun = re.sub(r"([^aeiou])y$", r"\1ie", noun)
    return re.sub(r"(s|x|ch|sh)$", r"\1e", noun) + "s"


def command(*words: str | Path) -> str:
    """A command of this tool as the user would type it: ``lrfr verify data``, or ``python cli.py verify data``."""
    called = Path(sys.argv[0])
    program = ["python", str(called)] if called.name == "cli.py" else ["lrfr"]
    return shlex.join([*program, *map(str, words)])
