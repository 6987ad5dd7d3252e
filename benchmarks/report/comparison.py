"""Two or more networks on the same questions: figures side by side, differences with paired 95 % intervals."""

from __future__ import annotations

import dataclasses
import string
from pathlib import Path

import numpy as np

from benchmarks.errors import ProtocolError
from benchmarks.report.document import Grid
from benchmarks.report.tables import ABSENT, network, percent
from benchmarks.scoring.intervals import bootstrap
from benchmarks.scoring.samples import Samples
from benchmarks.scoring.saved import SavedResult, read_results

LETTERS = string.ascii_uppercase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Networks side by side. grids: a table a benchmark.  legend: which letter is which file, what the signs mean."""

    grids: list[Grid]
    legend: list[str]


def compare(paths: list[Path]) -> Comparison:
    """A table of each benchmark that all files hold; differences are to the first file.

    Args:
        paths: 2 to 26 files.

    Raises:
        ProtocolError: a file is not a result, there is no benchmark in common, or it was scored on other pairs or
            probes.
    """
    files = [{result.benchmark: result for result in read_results(path)} for path in paths]
    common = [name for name in files[0] if all(name in file for file in files)]
    if not common:
        raise ProtocolError(f"{', '.join(map(str, paths))}: no benchmark in common; compare results of the same one")
    return Comparison(
        grids=[_grid([file[name] for file in files], paths) for name in common],
        legend=_legend([file[common[0]] for file in files], paths),
    )


def _grid(results: list[SavedResult], paths: list[Path]) -> Grid:
    first = results[0]
    rows = []
    differences = [
        _differences(first, other, paths[0], path) for other, path in zip(results[1:], paths[1:], strict=True)
    ]
    unresolved = {setting.format(name) for setting, samples in first.settings.items() for name in samples.unresolved()}
    for name in first.metrics:
        values = [None if name in unresolved else result.metrics[name] for result in results]
        cells = [name, percent(values[0])]
        for value, difference in zip(values[1:], differences, strict=True):
            cells += [percent(value), _difference(values[0], value, difference.get(name))]
        rows.append(cells)
    header = ["", _letter(0, first)]
    for index, result in enumerate(results[1:], 1):
        header += [_letter(index, result), f"{LETTERS[index]} - A"]
    return Grid(caption=f"{first.title}, %", header=header, rows=rows)


def _letter(index: int, result: SavedResult) -> str:
    return f"{LETTERS[index]}{' (partial)' if result.partial else ''}"


def _difference(first: float | None, other: float | None, interval: np.ndarray | None) -> str:
    if first is None or other is None:
        return ABSENT
    change = f"{100 * (other - first):+.2f}"
    if interval is None:
        return change
    low, high = interval
    return f"{change} [{100 * low:+.1f}, {100 * high:+.1f}]{'*' if low > 0 or high < 0 else ' '}"


def _differences(first: SavedResult, other: SavedResult, first_path: Path, path: Path) -> dict[str, np.ndarray]:
    """(2,) bounds of each figure's difference: both networks see the same people in each bootstrap round."""
    alike = set(first.settings) == set(other.settings) and set(first.metrics) == set(other.metrics)
    if not alike or not all(samples.same_questions(other.settings[name]) for name, samples in first.settings.items()):
        raise ProtocolError(
            f"{path}: {first.benchmark}: scored on other pairs or probes than {first_path}; score both on the same"
            " images and landmarks, with the same ones missing"
        )
    found = {}
    for setting, samples in first.settings.items():
        bounds = bootstrap(_paired(samples, other.settings[setting]), samples.identities)
        found.update({setting.format(name): interval for name, interval in bounds.items()})
    return found


def _paired(first: Samples, other: Samples):  # type: ignore[no-untyped-def]
    def differences(weights: np.ndarray) -> dict[str, float]:
        ours, theirs = first.figures(weights), other.figures(weights)
        return {name: theirs[name] - ours[name] for name in ours}

    return differences


def _legend(results: list[SavedResult], paths: list[Path]) -> list[str]:
    named = [
        f"{letter}: {network(result.checkpoint)}, {path}"
        for letter, result, path in zip(LETTERS, results, paths, strict=False)
    ]
    return [
        *named,
        "B - A: difference to the first file; [..]: its paired 95 % bootstrap interval over identities;"
        " *: the interval excludes zero",
    ]
