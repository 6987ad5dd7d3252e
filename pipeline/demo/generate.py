"""Generates data sets of painted faces, in the folder layouts of the public ones (``demo-data``)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.demo.faces import FACES
from pipeline.demo.layouts import LAYOUTS, DatasetPlan, DemoOptions
from pipeline.demo.render import IdentityJob, ImageSpec, render_identity
from pipeline.executors import Executor, unordered_map
from pipeline.images.lookup import GENERATED_MARKER
from pipeline.progress import Progress
from shards.arguments import check_argument, check_path
from shards.errors import LrfrError
from shards.files import StrPath, naming, remove_temporaries, temporary_path
from shards.locks import locked, sync_folder

MIN_PHOTOS_FOR_POOL = 48  # fewer photos are painted before worker processes have started


class DemoDataError(LrfrError):
    """The output folder contains other data."""


def write_demo_data(
    out: StrPath, *, identities: int, images: int, seed: int, layouts: Sequence[str] | None = None
) -> None:
    """Writes data sets of generated faces under ``out``; keeps those that exist with the same options.

    Each data set appears completely or not at all, as soon as its last image is written. One process writes at a time.

    Args:
        identities: number of training people, at least two; there are half as many test people, at least two.
        images: photos of each person, at least two.
        layouts: data sets to write, keys of ``LAYOUTS``; None for all.

    Raises:
        DemoDataError: there is no such layout, or a folder with the name of a data set exists and contains other data.
        LockedError: another process is generating data under ``out``.
        TypeError, ValueError: an argument of a wrong type, or fewer than two ``identities`` or ``images``.
    """
    out = check_path("out", out)
    check_argument(not isinstance(layouts, str), "layouts", layouts, "a list of names, such as ['LFW'], or None")
    options = DemoOptions(identities=identities, images=images, seed=seed)
    unknown = [name for name in layouts or () if name not in LAYOUTS]
    if unknown:
        raise DemoDataError(f"unknown layout {unknown[0]!r}; choose from {', '.join(LAYOUTS)}")
    plans = {name: LAYOUTS[name](options) for name in (LAYOUTS if layouts is None else layouts)}
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, "generating data"):
        _render({name: plan for name, plan in plans.items() if not _exists(out / name, options, plan)}, out, options)


def _marker(options: DemoOptions, plan: DatasetPlan) -> str:
    """Content of a data set's marker file. The first revision of a layout is not recorded."""
    revision = {"revision": plan.revision} if plan.revision > 1 else {}
    return json.dumps(dataclasses.asdict(options) | {"faces": FACES} | revision, sort_keys=True) + "\n"


def _exists(folder: Path, options: DemoOptions, plan: DatasetPlan) -> bool:
    """True if ``folder`` contains this data set, False if it does not exist."""
    if not os.path.lexists(folder):
        return False
    marker = folder / GENERATED_MARKER
    found = marker.read_text() if marker.is_file() else None
    if found == _marker(options, plan):
        return True
    reason = "was generated with other options or by another version" if found else "is not generated data"
    raise DemoDataError(f"{folder}: exists and {reason}; choose another --out, or delete it")


def _render(plans: dict[str, DatasetPlan], out: Path, options: DemoOptions) -> None:
    """Paints each photo once for all data sets that contain it."""
    if not plans:
        return
    partial = {name: temporary_path(out / name) for name in plans}
    for name, folder in partial.items():
        remove_temporaries(out, name)
        folder.mkdir()
    landmarks: dict[str, dict[str, np.ndarray]] = {name: {} for name in plans}
    jobs = _identity_jobs(plans, partial, options.seed)
    total = sum(job.photo_count for job in jobs)
    executor: Executor = "serial" if total < MIN_PHOTOS_FOR_POOL else "process"
    results = unordered_map(render_identity, jobs, executor=executor, workers=len(os.sched_getaffinity(0)))
    try:
        with Progress("demo-data", total) as progress, contextlib.closing(results):
            for photo_count, written in results:
                for name, points in written.items():
                    landmarks[name].update(points)
                    if len(landmarks[name]) == len(plans[name].images):
                        _publish(partial[name], out / name, landmarks[name], options, plans[name])
                progress.update(photo_count)
    finally:
        for folder in partial.values():
            shutil.rmtree(folder, ignore_errors=True)


def _identity_jobs(plans: dict[str, DatasetPlan], folders: dict[str, Path], seed: int) -> list[IdentityJob]:
    """One job for each person, training people first."""
    images: dict[int, list[tuple[str, ImageSpec]]] = defaultdict(list)
    for name, plan in plans.items():
        for image in plan.images:
            images[image.person].append((name, image))
    return [IdentityJob(person=person, seed=seed, images=images[person], folders=folders) for person in sorted(images)]


def _publish(
    partial: Path, folder: Path, landmarks: dict[str, np.ndarray], options: DemoOptions, plan: DatasetPlan
) -> None:
    """Adds the lists of a data set to its images, makes them durable and renames its folder."""
    for path, content in plan.lists(landmarks).items():
        (partial / path).parent.mkdir(parents=True, exist_ok=True)
        with naming(folder / path):
            (partial / path).write_bytes(content)
    with naming(folder):
        (partial / GENERATED_MARKER).write_text(_marker(options, plan))
    os.sync()  # fsync of every file takes a hundred times as long
    os.replace(partial, folder)
    sync_folder(folder.parent)
