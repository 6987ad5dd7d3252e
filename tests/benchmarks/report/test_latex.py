"""Tables for LaTeX."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from benchmarks.report.document import Grid, Section
from benchmarks.report.latex import as_latex, latex_text
from tests.processes import PATIENCE_S

HOSTILE = '\\input{/etc/passwd} 100 % $x_1^2$ & #~{}<b>|"\x1b[31m\n'


def test_a_table_has_rules_intervals_bold_and_published_rows():
    grid = Grid(
        caption="LFW: HR to LR, accuracy, %",
        header=["", "8 px", "12 px"],
        rows=[["a_1", "67.30", "-"], ["  95 % interval", "66.1-68.5", "-0.2 to +0.1"], ["paper", "94.80", "97.60"]],
        ours=2,
        published=1,
        best=frozenset({(0, 1)}),
    )
    facts = Grid(caption="not a table of numbers", header=["", ""], rows=[["a", "b"]], wraps=True)
    text = as_latex([Section(title="s", grids=[grid, facts])])
    assert text.count(r"\begin{table}") == 1
    body = text[text.index(r"\begin{tabular}") : text.index(r"\end{tabular}")].splitlines()
    assert body == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & 8 px & 12 px \\",
        r"\midrule",
        r"a\_1 & \textbf{67.30} & -- \\",
        r"{\footnotesize ~~95 \% interval} & {\footnotesize 66.1--68.5} & {\footnotesize -0.2 to +0.1} \\",
        r"\midrule",
        r"paper & 94.80 & 97.60 \\",
        r"\bottomrule",
    ]
    assert r"\caption{LFW: HR to LR, accuracy, \%}" in text
    assert "paired 95 % bootstrap intervals" in text
    assert "LuaLaTeX" in text.partition("\\begin")[0]


def test_names_are_no_commands():
    escaped = latex_text(HOSTILE)
    assert escaped == (
        r"\textbackslash{}input\{/etc/passwd\} 100 \% \$x\_1\textasciicircum{}2\$ \& \#\textasciitilde{}\{\}"
        r"\textless{}b\textgreater{}\textbar{}\textquotedbl{}\textbackslash{}x1b{[}31m\textbackslash{}n"
    )
    assert not re.findall(r"(?<!\\)[$&#_%]", escaped)


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_latex_takes_the_tables(tmp_path):
    rows = [[HOSTILE, "1", "2"], ["  95 % interval", "0-1", HOSTILE], ["[mine]", "1", "2"], ["*", "3", "4"]]
    tables = as_latex([Section(title="s", grids=[Grid(caption=HOSTILE, header=["", HOSTILE, "x"], rows=rows, ours=2)])])
    document = r"\documentclass{article}\usepackage{booktabs}\usepackage[T1]{fontenc}\begin{document}"
    (tmp_path / "a.tex").write_text(f"{document}\n{tables}\n\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "a.pdf").stat().st_size > 1000
