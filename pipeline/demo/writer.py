"""demo-data: generated faces in the layouts of the public data sets, the embedded default data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.demo.layouts import LAYOUTS, DemoOptions, Plan
from pipeline.demo.photographs import Print, Sitting, develop
from pipeline.executors import Executor, unordered_map
from pipeline.progress import Progress
from pipeline.sources.finder import GENERATED_MARKER
from shards.errors import LrfrError

_FEW = 48  # photographs that are painted sooner than processes start


class DemoDataError(LrfrError):
    """Generated faces cannot be put where they should go. One line."""


def write_demo_data(
    out: Path, *, identities: int, images: int, seed: int, layouts: Sequence[str] | None = None
) -> None:
    """Writes data sets of generated faces under ``out``; what is there already with the same options is kept.

    Each data set appears whole or not at all, as soon as its last photograph is painted.

    Args:
        identities: people to train on; half as many more, at least two, to test on.
        images: photographs of each, at least two.
        layouts: names of data sets, keys of ``LAYOUTS``; None for all.

    Raises:
        DemoDataError: a data set of that name is there and is not this one.
    """
    options = DemoOptions(identities=identities, images=images, seed=seed)
    plans = {name: LAYOUTS[name](options) for name in (LAYOUTS if layouts is None else layouts)}
    _paint(out, {name: plan for name, plan in plans.items() if not _is_there(out / name, options, plan)}, options)


def _marker(options: DemoOptions, plan: Plan) -> str:
    """What tells this data set from others; the first revision of a layout does not state it."""
    revision = {"revision": plan.revision} if plan.revision > 1 else {}
    return json.dumps(dataclasses.asdict(options) | revision, sort_keys=True) + "\n"


def _is_there(folder: Path, options: DemoOptions, plan: Plan) -> bool:
    if not folder.exists():
        return False
    found = (folder / GENERATED_MARKER).read_text() if (folder / GENERATED_MARKER).exists() else None
    if found == _marker(options, plan):
        return True
    what = "generated with other options or by another version" if found else "not generated data"
    raise DemoDataError(f"{folder}: exists and is {what}; choose another --out, or delete it")


def _paint(out: Path, plans: dict[str, Plan], options: DemoOptions) -> None:
    """Paints each photograph once for all the data sets that show it."""
    if not plans:
        return
    partial = {name: out / f"{name}.partial" for name in plans}
    for folder in partial.values():
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        folder.mkdir(parents=True)
    landmarks: dict[str, dict[str, np.ndarray]] = {name: {} for name in plans}
    sittings = _sittings(plans, partial, options.seed)
    total = sum(sitting.photographs for sitting in sittings)
    executor: Executor = "serial" if total < _FEW else "process"
    done = unordered_map(develop, sittings, executor=executor, workers=len(os.sched_getaffinity(0)))
    try:
        with Progress("demo-data", total) as progress, contextlib.closing(done):
            for photographs, printed in done:
                for name, points in printed.items():
                    landmarks[name].update(points)
                    if len(landmarks[name]) == len(plans[name].prints):
                        _publish(partial[name], out / name, landmarks[name], options, plans[name])
                progress.update(photographs)
    finally:
        for folder in partial.values():
            shutil.rmtree(folder, ignore_errors=True)


def _sittings(plans: dict[str, Plan], folders: dict[str, Path], seed: int) -> list[Sitting]:
    """One a person, people of the training set first."""
    prints: dict[int, dict[str, list[Print]]] = {}
    for name, plan in plans.items():
        for job in plan.prints:
            prints.setdefault(job.person, {}).setdefault(name, []).append(job)
    return [Sitting(person=person, seed=seed, prints=prints[person], folders=folders) for person in sorted(prints)]


def _publish(partial: Path, folder: Path, landmarks: dict[str, np.ndarray], options: DemoOptions, plan: Plan) -> None:
    """Adds a data set's lists to its images and gives it its name."""
    for path, content in plan.lists(landmarks).items():
        (partial / path).parent.mkdir(parents=True, exist_ok=True)
        (partial / path).write_bytes(content)
    (partial / GENERATED_MARKER).write_text(_marker(options, plan))
    os.replace(partial, folder)
