"""Published results with their sources, and the columns of the report's tables, from ``published.toml``."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib import resources

from benchmarks.scoring.results import Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A row of published results.

    Attributes:
        system: name in tables and legends.
        source: publication.
        url: its address.
        metrics: fractions by metric name.
        note: what limits the comparison; empty if nothing.
    """

    system: str
    source: str
    url: str
    metrics: dict[str, float]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of metrics.

    Attributes:
        columns: metric name -> column title.
        title: may be empty.
        join: between the title and a column's title in the name of a metric.
        figure: name of the figure that shows the metrics against the columns; empty if there is none.
        printed: whether ``bench`` prints it.
    """

    columns: dict[str, str]
    title: str = ""
    join: str = ", "
    figure: str = ""
    printed: bool = True

    def label(self, metric: str) -> str:
        """Name of a metric of the table, such as ``HR to LR, accuracy, 8 px``."""
        return self.join.join(filter(None, [self.title, self.columns[metric]]))


_DATA = tomllib.loads(resources.files(__package__).joinpath("published.toml").read_text("utf-8"))
TABLES = {benchmark: [Table(**table) for table in tables] for benchmark, tables in _DATA["tables"].items()}
PUBLISHED = {benchmark: [Published(**row) for row in _DATA["results"].get(benchmark, [])] for benchmark in TABLES}


def comparable_rows(result: Scores) -> list[Published]:
    """The published results that may stand beside a result: none if its data are not those of the publications."""
    return [] if result.caveats else PUBLISHED.get(result.benchmark, [])
