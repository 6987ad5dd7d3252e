"""A report as a value, and its two forms: Markdown with picture files, one HTML file with everything inside."""

from __future__ import annotations

import base64
import dataclasses
import html

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
nav a { margin-right: 1rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0 1.4rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.ours { background: var(--soft); font-weight: 600; }
tr.published { font-style: italic; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; } figcaption { font-size: .9rem; }
p.warning { border-left: .3rem solid #c60; padding: .3rem .8rem; background: var(--soft); }
""".strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A table of text.

    rows: the first cell of each names it.  ours: how many of the first rows stand out as this network's.
    published: how many of the last rows are others' figures.
    """

    caption: str
    header: list[str]
    rows: list[list[str]]
    ours: int = 0
    published: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG. name: of its file.  alt: what it shows, in words."""

    name: str
    png: bytes
    alt: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what is below it, in this order."""

    title: str
    warnings: list[str] = dataclasses.field(default_factory=list)
    text: list[str] = dataclasses.field(default_factory=list)
    grids: list[Grid] = dataclasses.field(default_factory=list)
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def as_text(grid: Grid) -> str:
    """The table as aligned text."""
    rows = [[grid.caption, *grid.header[1:]], *grid.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def as_markdown(title: str, sections: list[Section]) -> str:
    """The report; pictures by file name."""
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += [f"> **{warning}**" for warning in section.warnings] + section.text
        for grid in section.grids:
            lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in [grid.header, *grid.rows]]
            rule = "|---" + "|--:" * (len(grid.header) - 1) + "|"
            parts += [f"**{grid.caption}**", "\n".join([lines[0], rule, *lines[1:]])]
        parts += [f"![{picture.alt}]({picture.name})" for picture in section.pictures]
        if section.notes:
            parts.append("\n".join(f"- {note}" for note in section.notes))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|")


def as_html(title: str, sections: list[Section]) -> str:
    """The report as one page that needs nothing else."""
    links = "".join(f'<a href="#s{index}">{html.escape(section.title)}</a>' for index, section in enumerate(sections))
    body = "\n".join(_section(index, section) for index, section in enumerate(sections))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n<nav>{links}</nav>\n{body}\n</body>\n</html>\n"
    )


def _section(index: int, section: Section) -> str:
    parts = [f'<section id="s{index}">', f"<h2>{html.escape(section.title)}</h2>"]
    parts += [f'<p class="warning">{html.escape(text)}</p>' for text in section.warnings]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.text]
    parts += [_table(grid) for grid in section.grids]
    for picture in section.pictures:
        data = base64.b64encode(picture.png).decode()
        alt = html.escape(picture.alt, quote=True)
        parts.append(
            f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{alt}</figcaption></figure>'
        )
    if section.notes:
        parts.append("<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in section.notes) + "</ul>")
    return "\n".join([*parts, "</section>"])


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in grid.header)
    rows = []
    for number, row in enumerate(grid.rows):
        kind = ' class="ours"' if number < grid.ours else ""
        kind = ' class="published"' if number >= len(grid.rows) - grid.published else kind
        rows.append(f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    return (
        f'<div class="table"><table><caption>{html.escape(grid.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
