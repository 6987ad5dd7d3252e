"""Shard sets and runs: are they finished, and what is wrong with the newest?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from commands.diagnosis.findings import Finding, fail, note, ok, warn
from commands.diagnosis.waiting import Waiting
from shards.errors import LrfrError
from shards.files import open_regular
from shards.finish import describe
from shards.messages import command, counted
from shards.schema import MANIFEST, PLAN, Manifest
from shards.verify import verify

_SHOWN = 3  # problems of a shard set
_RESTORE = "restore the file, or delete the folder and build again"


def shard_findings(folders: Sequence[Path]) -> Iterator[Finding]:
    """The newest of some shard sets; ``verify`` without the bytes of its tars."""
    newest = _newest(folders, MANIFEST, PLAN)
    yield from _others(folders, newest, "shard set")
    if not (newest / MANIFEST).exists():
        done = len(list(newest.glob("shard-*.done.json")))
        yield warn(
            f"{newest}: unfinished, {counted(done, 'shard')} done", "run the same build-shards again: it continues"
        )
        return
    try:
        manifest = Manifest.read(newest)
        with Waiting("verify", manifest.shards, "shards") as progress:
            problems = list(verify(newest, on_shard=progress.update))
    except LrfrError as error:
        yield fail(str(error), _RESTORE)
        return
    people = counted(manifest.identities - manifest.empty_identities, "person")
    images = f"{counted(manifest.images, 'image')} of {people} in {counted(manifest.shards, 'shard')}"
    yield ok(f"{newest}: finished, {images}, from {manifest.source}")
    if rejected := manifest.rows - manifest.images:
        yield note(
            f"{rejected:,} of {counted(manifest.rows, 'row')} rejected ({describe(manifest.statuses)})",
            "see the columns status and error_message of its shard-*.parquet",
        )
    for problem in problems[:_SHOWN]:
        yield fail(problem, _RESTORE)
    if len(problems) > _SHOWN:
        yield fail(f"and {counted(len(problems) - _SHOWN, 'other problem')}", command("verify", newest))


def run_findings(folders: Sequence[Path]) -> Iterator[Finding]:
    """The newest of some training runs."""
    newest = _newest(folders, "metrics.jsonl")
    yield from _others(folders, newest, "run")
    steps, step = _steps(newest), _last_step(newest)
    checkpoints = _checkpoints(newest)
    state = f"{newest}: step {step:,}" + (f" of {steps:,}" if steps else "")
    if not checkpoints:
        yield warn(f"{state}, no checkpoint", "run the same train command again: it begins")
    elif steps is None:
        yield warn(
            f"{state}; its config.json is missing or damaged", "checkpoints work without it: name one with --network"
        )
    elif step < steps:
        yield note(f"{state}, not finished or still running", "run the same train command again: it continues")
    else:
        yield ok(f"{state}, finished")
    if checkpoints:
        empty = [path for path in checkpoints if path.stat().st_size == 0]
        if empty:
            yield fail(f"{empty[0]}: an empty file", "delete it; train continues from the one before")
        yield ok(f"newest checkpoint: {checkpoints[-1].name}")


def _checkpoints(run: Path) -> list[Path]:
    """As ``model.formats.checkpoint.checkpoints``, without PyTorch, which may not work."""
    found = [path for path in (run / "checkpoints").glob("[0-9]*.pt") if path.stem.isdecimal()]
    return sorted(found, key=lambda path: int(path.stem))


def _newest(folders: Sequence[Path], *names: str) -> Path:
    """The folder whose file of one of these names was changed last."""

    def changed(folder: Path) -> float:
        return max((path.stat().st_mtime for name in names if (path := folder / name).exists()), default=0.0)

    return max(folders, key=lambda folder: (changed(folder), folder.name))


def _others(folders: Sequence[Path], newest: Path, noun: str) -> Iterator[Finding]:
    if len(folders) > 1:
        yield note(f"{counted(len(folders), noun)}; the newest, {newest}, is looked at")


def _steps(run: Path) -> int | None:
    """The steps of a complete run, as its ``config.json`` says."""
    try:
        with open_regular(run / "config.json") as stream:
            steps = json.loads(stream.read())["steps"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return steps if isinstance(steps, int) else None


def _last_step(run: Path) -> int:
    """The last step of the metrics. The last line may be cut by a killed process."""
    with open_regular(run / "metrics.jsonl") as stream:
        stream.seek(max(stream.seek(0, 2) - (1 << 16), 0))
        for line in reversed(stream.read().splitlines()):
            try:
                return int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
    return 0
