"""Rendering of reports."""

from __future__ import annotations

import re

from benchmarks.report.document import Grid, Picture, Section, as_html, as_markdown, as_text


def test_text_is_aligned():
    grid = Grid(
        caption="LFW, %", header=["", "8 px", "12 px"], rows=[["a longer label", "1.00", "2.00"], ["b", "-", "10.00"]]
    )
    assert as_text(grid).splitlines() == [
        "LFW, %          8 px  12 px",
        "---------------------------",
        "a longer label  1.00   2.00",
        "b                  -  10.00",
    ]


def test_rows_of_this_network_and_published_rows_have_classes():
    rows = [["ours", "1"], ["interval", "2"], ["theirs", "3"]]
    page = as_html(
        "t", [Section(title="s", grids=[Grid(caption="c", header=["", "x"], rows=rows, ours=1, published=1)])]
    )
    assert re.findall(r"<tr(.*?)><td>(\w+)</td>", page) == [
        (' class="ours"', "ours"),
        ("", "interval"),
        (' class="published"', "theirs"),
    ]


def test_text_is_escaped():
    section = Section(
        title="<script>",
        warnings=["a & b"],
        grids=[Grid(caption="<b>", header=["", "x|y"], rows=[["<i>", "1"]])],
        pictures=[Picture(name="a.png", png=b"x", alt='"><img onerror=1>')],
    )
    page = as_html("<t>", [section])
    assert not re.search(r"<script>|<b>|<i>|<t>|<img onerror", page)
    assert page.count("&lt;script&gt;") == 2
    assert "x\\|y" in as_markdown("t", [section])
