"""Parts of messages: counts with their noun, commands to run next, names that may contain anything."""

from __future__ import annotations

import errno
import importlib.metadata
import re
import shlex
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
FORMULA_STARTS = "=+-@\t\r\n"  # spreadsheets run text in a CSV that begins with one of these; it gets an apostrophe


def counted(number: int, noun: str) -> str:
    """Formats a count: ``1 identity``, ``2,345 identities``."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The plural of an English noun: a regular one, or person."""
    if noun == "person":
        return "people"
    noun = re.sub(r"([^aeiou])y$", r"\1ie", noun)
    return re.sub(r"(s|x|ch|sh)$", r"\1e", noun) + "s"


def command(*words: str | Path) -> str:
    """A command of this tool as the user would type it: ``lrfr verify data``, or ``python cli.py verify data``."""
    called = Path(sys.argv[0])
    program = ["python", str(called)] if called.name == "cli.py" else ["lrfr"]
    return shlex.join([*program, *map(str, words)])


def install_command(extra: str = "") -> str:
    """The command that installs the libraries of an extra; without one, those that are always required."""
    if not is_checkout():
        return shlex.join(["pip", "install", *requirements(extra)])
    if extra:
        return shlex.join(["pip", "install", "--editable", f"{CHECKOUT}[{extra}]"])
    return shlex.join(
        ["pip", "install", "--editable", str(CHECKOUT), "--constraint", str(CHECKOUT / "constraints.txt")]
    )


def is_checkout() -> bool:
    """Whether the code runs from a checkout; False after ``pip install`` without ``--editable``."""
    return (CHECKOUT / "setup.cfg").is_file()


def requirements(extra: str = "") -> list[str]:
    """What the installed package requires, such as ``numpy>=2.0``: for an extra, or always."""
    lines = importlib.metadata.requires("lrfr") or []
    return [
        line.partition(";")[0].strip()
        for line in lines
        if re.findall(r"extra == .([\w-]+)", line) == [extra] * bool(extra)
    ]


def printable(text: str) -> str:
    r"""Returns one line that a terminal shows as it is.

    Line breaks, control and invisible characters, and bytes of file names that are not UTF-8 become escapes such as
    ``\n``, ``\x1b``, ``\u202e`` and ``\udcff``.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def first_line(error: BaseException, most: int = 80) -> str:
    """The first line of an error's message, shortened; the type of an error without a message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:most]


def print_stderr(line: str) -> None:
    """Prints a line on stderr, as ``printable``. Nothing if nobody reads it any more: work outlives a closed terminal."""
    try:
        print(printable(line), file=sys.stderr, flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal is closed
            raise
