"""Tables of a report for LaTeX, with booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.report.document import Grid, Section
from benchmarks.report.labels import ABSENT
from shards.messages import printable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # after the end of a row it would begin an argument, and * would be part of the command
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_RANGE = re.compile(r"(?<=\d)-(?=\d)")
FIRST_LINE = r"% \usepackage{booktabs}, \usepackage[T1]{fontenc}"
_HEAD = rf"""{FIRST_LINE}
% Names in scripts that pdfLaTeX does not know need LuaLaTeX or XeLaTeX, and a font that has them.
% Bold: better than every other network, by paired 95 % bootstrap intervals over identities. With one network: none.
"""


def as_latex(sections: Sequence[Section]) -> str:
    """The tables of numbers in some sections."""
    tables = [grid for section in sections for grid in section.grids if not grid.wraps]
    return _HEAD + "".join(f"\n{_table(grid, number)}" for number, grid in enumerate(tables, 1))


def latex_text(text: str) -> str:
    """Escapes what LaTeX gives a meaning: names from data may hold commands."""
    return "".join(_SPECIAL.get(character, character) for character in printable(text))


def _table(grid: Grid, number: int) -> str:
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(grid.caption)}}}",
        rf"\label{{tab:lrfr-{number}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
        r"\toprule",
        _row([latex_text(cell) for cell in grid.header]),
        r"\midrule",
    ]
    for index, row in enumerate(grid.rows):
        if grid.published and index == len(grid.rows) - grid.published:
            lines.append(r"\midrule")
        lines.append(_row([_cell(grid, index, column, cell) for column, cell in enumerate(row)]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _cell(grid: Grid, row: int, column: int, cell: str) -> str:
    text = latex_text(cell.strip())
    if column:
        text = "--" if cell == ABSENT else _RANGE.sub("--", text)
    if grid.kind(row) == "interval":
        return rf"{{\footnotesize {'' if column else '~~'}{text}}}"
    return rf"\textbf{{{text}}}" if (row, column) in grid.best else text


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
