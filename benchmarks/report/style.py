"""How figures look, and their files: colours that colour-blind people can tell apart, PNG, SVG and PDF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image

from benchmarks.report.labels import rate
from shards.messages import printable
from shards.process_setting import ProcessSetting, ignored_warnings

DPI = 150
WIDTH_IN, HEIGHT_IN = 5.4, 4.2  # letters stay legible on a phone
MAX_LABEL_CHARS = 44
MAX_COLUMN_CHARS = 30  # of labels in two columns
LEGEND_ROW_IN = 0.18
PNG_COLORS = 256
# Source: Okabe & Ito, Color universal design, 2008; the yellow is too light for lines
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#D55E00")
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)))  # with 7 colours: 28 pairs
MARKERS = "osD^vPX"
BAND_ALPHA = 0.18
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_FONTS: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "lrfr", "pdf.fonttype": 42}


def _fonts() -> dict[str, Any]:
    parameters: Any = mpl.rcParams
    return {name: parameters[name] for name in _FONTS}


def _set_fonts(values: dict[str, Any]) -> None:
    mpl.rcParams.update(values)  # type: ignore[arg-type]


font_settings = ProcessSetting(_fonts, lambda: _set_fonts(_FONTS), _set_fonts)
"""SVG with its text as text, the same file in each run, and PDF with its fonts."""


def png(figure: Figure) -> bytes:
    """Renders a figure as PNG."""
    return _saved(figure, "png", dpi=DPI)


def drawing(figure: Figure) -> dict[str, bytes]:
    """A figure of lines as PNG of few colours, SVG with its text as text, and PDF with its fonts; without dates."""
    with Image.open(io.BytesIO(png(figure))) as picture:
        buffer = io.BytesIO()
        # by coverage: thin lines keep their colours
        small = picture.convert("RGB").quantize(PNG_COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(buffer, "PNG", optimize=True)
    files = {"png": buffer.getvalue()}
    figure.set_layout_engine("none")  # the layout is found
    with font_settings:
        files |= {suffix: _saved(figure, suffix, metadata=metadata) for suffix, metadata in _METADATA.items()}
    return files


def _saved(figure: Figure, suffix: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with ignored_warnings():  # of glyphs that a font lacks: names may be of any script
        figure.savefig(buffer, format=suffix, **options)
    return buffer.getvalue()


def legend_label(text: str, limit: int = MAX_LABEL_CHARS) -> str:
    """A name as matplotlib shows it: short, and not hidden by an underscore at its start."""
    text = printable(text)
    short = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return f" {short}" if short.startswith("_") else short


def line(number: int) -> dict[str, Any]:
    """Colour and line style of a curve: 28 different ones."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": LINES[number % len(LINES)]}


def new_figure(title: str, height: float = HEIGHT_IN) -> Figure:
    """An empty figure of one column of a page."""
    figure = Figure(layout="constrained", figsize=(WIDTH_IN, height))
    figure.suptitle(title, fontsize=10, parse_math=False)  # a name may contain dollar signs
    return figure


def finish(figure: Figure, axes: Axes) -> Figure:
    """Adds percent labels, a grid, and a legend below the axes, where it hides nothing."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: rate(value)))
    axes.grid(alpha=0.3, which="both")
    entries = sorted(
        zip(*axes.get_legend_handles_labels(), strict=True), key=lambda entry: entry[1].startswith("published")
    )
    add_legend(figure, entries)
    return figure


def add_legend(figure: Figure, entries: Sequence[tuple[Any, str]], columns: int = 2) -> None:
    """Adds a legend below the axes; long labels get one column, and the figure grows with their number.

    Args:
        entries: handles and labels.
    """
    handles, labels = zip(*entries, strict=True)
    columns = 1 if max(map(len, labels)) > MAX_COLUMN_CHARS else columns
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW_IN * max(rows - 3, 0))
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8.5)
    for text in legend.get_texts():
        text.set_parse_math(False)
