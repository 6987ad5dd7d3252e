"""The sections of the page, in order. One that fails does not stop the others."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from commands.diagnosis import libraries
from commands.diagnosis.findings import Finding, Level, Section, fail, note
from shards.errors import LrfrError
from shards.messages import command


def sections(root: Path, data: Path) -> Iterator[Section]:
    """Yields the sections. Each must be read before the next one.

    Args:
        root: folder to look for data in.
        data: ``$LRFR_DATA``.
    """
    broken = False

    def noticing(findings: Iterable[Finding]) -> Iterator[Finding]:
        nonlocal broken
        for finding in findings:
            broken |= finding.level is Level.FAIL
            yield finding

    with libraries.started_probes() as probes:
        yield Section(title="Python", findings=_guarded(libraries.python_findings))
        yield Section(title="PyTorch", findings=_guarded(lambda: libraries.torch_findings(probes)))
        yield Section(title="DALI", findings=_guarded(lambda: libraries.dali_findings(probes)))
        yield Section(title="OpenCV", findings=noticing(_guarded(lambda: libraries.opencv_findings(probes))))
        others = noticing(_guarded(lambda: libraries.other_findings(probes, data)))
        yield Section(title="Other libraries", findings=others)
    yield Section(title="Machine", findings=_guarded(_of_machine))
    for folder in dict.fromkeys((root.absolute(), data.absolute())):
        yield Section(title=f"Disk of {folder}", findings=_guarded(functools.partial(_of_machine, folder)))
    if broken:
        text = f"the data in {root} were not looked at: a library that reads them does not work"
        yield Section(title="Data", findings=[note(text, "repair it, see above, then run doctor again")])
    else:
        yield from _data_sections(root, fail if root != data else note)


def _of_machine(folder: Path | None = None) -> Iterable[Finding]:
    """The machine, or the disk of a folder."""
    from commands.diagnosis.machine import disk_findings, machine_findings  # needs a library

    return machine_findings() if folder is None else disk_findings(folder)


def _data_sections(root: Path, absent: Callable[[str, str], Finding]) -> Iterator[Section]:
    from commands.diagnosis.data_sets import OTHER_TITLES, TITLES, data_set_findings
    from commands.diagnosis.layouts import find_layouts
    from commands.diagnosis.results import run_findings, shard_findings

    found: dict[str, list[Path]] = defaultdict(list)
    if not root.is_dir():
        missing = absent(f"{root}: not a folder", f"name the folder of your data, or run: {command('demo-data')}")
        yield Section(title="Data", findings=[missing])
        return
    for kind, folder in find_layouts(root):
        found[kind].append(folder)
        if title := {**TITLES, **OTHER_TITLES}.get(kind):
            findings = _guarded(functools.partial(data_set_findings, kind, folder))
            yield Section(title=f"{title} in {folder}", findings=findings)
    if others := [title for kind, title in TITLES.items() if kind not in found]:
        text = f"not found in {root}: {', '.join(others)}"
        yield Section(title="Other data sets", findings=[note(text, "docs/guide/prepare.md says where they come from")])
    if found["shard set"]:
        yield Section(title="Shard sets", findings=_guarded(lambda: shard_findings(found["shard set"])))
    if found["run"]:
        yield Section(title="Runs", findings=_guarded(lambda: run_findings(found["run"])))


def _guarded(findings: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Turns an expected error of a section into a finding, so that the page continues."""
    try:
        yield from findings()
    except (LrfrError, OSError, ImportError) as error:
        yield fail(f"could not be looked at: {error}", "see the message")
