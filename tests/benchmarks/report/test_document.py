"""Rendering of reports."""

from __future__ import annotations

import re

from benchmarks.report.document import Grid, Link, Picture, Section, Tiles, as_html, as_markdown, as_text
from pipeline.pages.pictures import Tile


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
        "t",
        [Section(title="s", grids=[Grid(caption="c", header=["", "x"], rows=rows, ours=2, alone=True, published=1)])],
    )
    assert re.findall(r"<tr([^>]*?)><td[^>]*>(\w+)</td>", page) == [
        (' class="ours"', "ours"),
        (' class="interval"', "interval"),
        (' class="published"', "theirs"),
    ]


def test_text_is_escaped():
    section = Section(
        title="<script>",
        warnings=["a & b"],
        grids=[Grid(caption="<b>", header=["", "x|y"], rows=[["<i>", "1"]])],
        pictures=[Picture(stem="a", files={"png": b"x"}, alt='"><img onerror=1>')],
        notes=[Link(before="<u>", text="<s>", url="https://x/", after="<q>")],
    )
    page = as_html("<t>", [section])
    assert not re.search(r"<script>|<b>|<i>|<t>|<u>|<s>|<q>|<img onerror", page)
    assert page.count("&lt;script&gt;") == 2
    assert "x\\|y" in as_markdown("t", [section])


HOSTILE = "a\n\n# b\x1b[31m <script>alert(1)</script> ![c](http://d/e.png) **f** | `g` _h_ &lt; ~~i~~ $j$ k_l \\"


def test_markdown_holds_neither_html_nor_markdown_from_names():
    section = Section(
        title=HOSTILE,
        warnings=[HOSTILE],
        text=[HOSTILE],
        grids=[Grid(caption=HOSTILE, header=["", HOSTILE], rows=[[HOSTILE, "1"]])],
        pictures=[Picture(stem="a", files={"png": b"x", "svg": b"", "pdf": b""}, alt=HOSTILE)],
        notes=[HOSTILE, Link(before="b: ", text="[c]", url="https://d/", after=".")],
    )
    text = as_markdown("t", [section])
    escaped = (
        r"a\n\n# b\x1b\[31m &lt;script&gt;alert(1)&lt;/script&gt; !\[c\](http://d/e.png) \*\*f\*\* \| \`g\` \_h\_"
        r" &amp;lt; \~\~i\~\~ \$j\$ k_l \\"
    )
    assert text.splitlines() == [
        "# t",
        "",
        f"## {escaped}",
        "",
        f"> **{escaped}**",
        "",
        escaped,
        "",
        f"**{escaped}**",
        "",
        f"|  | {escaped} |",
        "|---|--:|",
        f"| {escaped} | 1 |",
        "",
        f"![{escaped}](a.png)",
        "",
        "[SVG](a.svg), [PDF](a.pdf)",
        "",
        f"- {escaped}",
        r"- b: [\[c\]](https://d/).",
    ]


def test_text_and_html_show_names_without_control_characters():
    grid = Grid(caption=HOSTILE, header=["", "x"], rows=[[HOSTILE, HOSTILE]])
    lines = as_text(grid).splitlines()
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)
    page = as_html(HOSTILE, [Section(title=HOSTILE, text=[HOSTILE], grids=[grid], notes=[HOSTILE])])
    assert "\x1b" not in page
    assert "<script>" not in page
    assert r"a\n\n# b\x1b[31m &lt;script&gt;" in page


def test_the_best_cells_are_bold():
    grid = Grid(caption="c", header=["", "x"], rows=[["a", "1"], ["i", "2"]], ours=2, best=frozenset({(0, 1)}))
    section = Section(title="s", grids=[grid])
    assert re.search(r"<td[^>]*><b>1</b></td>", as_html("t", [section]))
    assert "| a | **1** |" in as_markdown("t", [section])


def test_tiles_and_names_stand_for_pictures():
    names = [Grid(caption="n", header=["cosine", "first"], rows=[["0.5", "a.jpg"]], wraps=True)]
    tiles = [Tiles(title="row", tiles=[Tile(caption="0.5", detail="a.jpg", jpeg=b"x")])]
    shown = Picture(stem="a", files={"png": b"x"}, alt="alt", tiles=tiles, names=names)
    page, text = (
        as_html("t", [Section(title="s", pictures=[shown])]),
        as_markdown("t", [Section(title="s", pictures=[shown])]),
    )
    assert page.count("data:image/jpeg") == 1
    assert "data:image/png" not in page
    assert "<td" not in page
    assert "![alt](a.png)" in text
    assert "| 0.5 | a.jpg |" in text
    hidden = Section(title="s", pictures=[Picture(stem="a", files={}, alt="alt", names=names)])
    page, text = as_html("t", [hidden]), as_markdown("t", [hidden])
    assert "data:image" not in page
    assert ">a.jpg</td>" in page
    assert "![" not in text
    assert "| 0.5 | a.jpg |" in text
