"""Two or more networks on the same questions: figures side by side, differences with paired 95 % intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.document import Grid
from benchmarks.errors import ProtocolError
from benchmarks.intervals import bootstrap
from benchmarks.report import network
from benchmarks.result import SavedResult, read_results
from benchmarks.samples import Samples


def compare(paths: list[Path]) -> list[Grid]:
    """A table a benchmark that all files hold; differences are to the first file.

    Raises:
        ProtocolError: a file is not a result, there is no benchmark in common, or it was scored on other pairs or
            probes.
    """
    files = [{result.benchmark: result for result in read_results(path)} for path in paths]
    common = [name for name in files[0] if all(name in file for file in files)]
    if not common:
        raise ProtocolError(f"{', '.join(map(str, paths))}: no benchmark in common; compare results of the same one")
    return [_grid([file[name] for file in files], paths) for name in common]


def _grid(results: list[SavedResult], paths: list[Path]) -> Grid:
    first = results[0]
    rows = []
    differences = [
        _differences(first, other, paths[0], path) for other, path in zip(results[1:], paths[1:], strict=True)
    ]
    for name, value in first.metrics.items():
        cells = [name, f"{100 * value:.2f}"]
        for other, difference in zip(results[1:], differences, strict=True):
            cells.append(f"{100 * other.metrics[name]:.2f}")
            cells.append(_difference(other.metrics[name] - value, difference.get(name)))
        rows.append(cells)
    header = ["", "A"]
    for letter in "BCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(results) - 1]:
        header += [letter, f"{letter} - A"]
    return Grid(caption=f"{first.title}, %", header=header, rows=rows)


def _difference(value: float, interval: np.ndarray | None) -> str:
    if interval is None:
        return f"{100 * value:+.2f}"
    low, high = interval
    return f"{100 * value:+.2f} [{100 * low:+.1f}, {100 * high:+.1f}]{'*' if low > 0 or high < 0 else ' '}"


def _differences(first: SavedResult, other: SavedResult, first_path: Path, path: Path) -> dict[str, np.ndarray]:
    """(2,) bounds of each figure's difference: both networks see the same people in each bootstrap round."""
    found = {}
    for setting, samples in first.settings.items():
        theirs = other.settings.get(setting)
        if theirs is None or not samples.same_questions(theirs):
            raise ProtocolError(
                f"{path}: {first.benchmark}: scored on other pairs or probes than {first_path};"
                " compare results on the same data, none of them partial"
            )
        bounds = bootstrap(_paired(samples, theirs), samples.identities)
        found.update({setting.format(name): interval for name, interval in bounds.items()})
    return found


def _paired(first: Samples, other: Samples):  # type: ignore[no-untyped-def]
    def differences(weights: np.ndarray) -> dict[str, float]:
        ours, theirs = first.figures(weights), other.figures(weights)
        return {name: theirs[name] - ours[name] for name in ours}

    return differences


def legend(paths: list[Path]) -> list[str]:
    """Which letter is which file."""
    lines = []
    for letter, path in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", paths, strict=False):
        result = read_results(path)[0]
        lines.append(f"{letter}: {network(result.checkpoint)}, {path}{' (partial)' if result.partial else ''}")
    return [*lines, "[..]: paired 95 % bootstrap interval over identities; *: it excludes zero"]
