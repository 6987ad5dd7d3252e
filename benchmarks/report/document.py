"""The content of a report, and its renderings as text, Markdown and HTML."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from pipeline.pages.pictures import Tile
from pipeline.pages.render import environment
from shards.messages import printable

# what CommonMark and GitHub give a meaning within a line; an underscore inside a word has none
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of text.

    Attributes:
        caption: title of the table.
        header: column titles; the first is empty.
        rows: cells; the first cell of a row is its label.
        ours: number of leading rows that are results, each followed by its intervals.
        alone: whether the results are those of one network.
        published: number of trailing rows that are published results.
        best: row and column of the cells to emphasise.
        wraps: cells are sentences or paths, not numbers.
    """

    caption: str
    header: list[str]
    rows: list[list[str]]
    ours: int = 0
    alone: bool = False
    published: int = 0
    best: frozenset[tuple[int, int]] = frozenset()
    wraps: bool = False

    def kind(self, row: int) -> str:
        """``ours`` for one network, ``network`` for several, ``interval``, ``published`` or nothing."""
        if row < self.ours:
            return "interval" if row % 2 else "ours" if self.alone else "network"
        return "published" if row >= len(self.rows) - self.published else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiles:
    """Small pictures below a title."""

    title: str
    tiles: list[Tile]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in files of one name, and on the page.

    Attributes:
        stem: of the files.
        alt: alternative text.
        files: content by suffix: ``png``, which Markdown shows; ``svg`` and ``pdf`` of a drawing.
        tiles: what the page shows in its place; none: the PNG.
        names: what Markdown shows below it; the page, too, if there are no files.
    """

    stem: str
    alt: str
    files: dict[str, bytes]
    tiles: list[Tiles] = dataclasses.field(default_factory=list)
    names: list[Grid] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    """Text with a linked part: ``before``, the link, ``after``."""

    before: str
    text: str
    url: str
    after: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and the content below it, in the order of the fields."""

    title: str
    warnings: list[str] = dataclasses.field(default_factory=list)
    text: list[str] = dataclasses.field(default_factory=list)
    grids: list[Grid] = dataclasses.field(default_factory=list)
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    notes: list[str | Link] = dataclasses.field(default_factory=list)


def as_text(grid: Grid) -> str:
    """Renders a table as aligned plain text."""
    rows = [list(map(printable, row)) for row in ([grid.caption, *grid.header[1:]], *grid.rows)]
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([label.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for label, *cells in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def as_markdown(title: str, sections: list[Section]) -> str:
    """Renders a report as Markdown that refers to the picture files."""
    return _render("template.md.j2", title, sections)


def as_html(title: str, sections: list[Section]) -> str:
    """Renders a report as one self-contained HTML page."""
    return _render("template.html", title, sections)


def markdown_text(text: str) -> str:
    """Escapes HTML and Markdown: names from data may contain both."""
    text = re.sub("&(?=[#A-Za-z])", "&amp;", text).replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _render(template: str, title: str, sections: list[Section]) -> str:
    found = environment(Path(__file__).parent)
    found.filters["markdown"] = markdown_text
    return found.get_template(template).render(title=title, sections=sections)
