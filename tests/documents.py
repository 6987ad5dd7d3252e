"""What pages of the documentation show."""

from __future__ import annotations

import re


def shell_lines(page):
    """The command lines of a page, without comments."""
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(), re.S):
        lines = block.replace("\\\n", " ").splitlines()
        yield from (line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip())


def table_of(page, heading):
    """The rows of the first table after a heading, as lists of cells."""
    text = page.read_text()
    lines = text[text.index(heading) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows
