"""Published results with their sources, and the columns of the report's tables, from ``published.toml``."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib import resources


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A row of published results.

    Attributes:
        system: name in tables and legends.
        source: publication.
        metrics: fractions by metric name.
        note: what limits the comparison; empty if nothing.
    """

    system: str
    source: str
    metrics: dict[str, float]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of metrics.

    Attributes:
        columns: metric name -> column title.
        title: may be empty.
    """

    columns: dict[str, str]
    title: str = ""


_DATA = tomllib.loads(resources.files(__package__).joinpath("published.toml").read_text("utf-8"))
TABLES = {benchmark: [Table(**table) for table in tables] for benchmark, tables in _DATA["tables"].items()}
PUBLISHED = {benchmark: [Published(**row) for row in _DATA["results"].get(benchmark, [])] for benchmark in TABLES}
