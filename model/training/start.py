"""Starts a run: a new one, a fine-tuned one, or one that continues from a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import NamedTuple

import torch

from model.formats.checkpoint import Content, checkpoint_path, checkpoints, is_ours, read_checkpoint
from model.formats.network import load_network
from model.training.changes import changed, check_resumes
from model.training.config import TrainConfig, TrainingError
from model.training.loop import CONFIG
from model.training.ranks import Ranks
from model.training.state import TrainState, check_config, new_run
from model.training.teacher import Teacher
from pipeline.spec import Preprocessing
from shards.arguments import check_argument, check_path
from shards.files import StrPath, quick_digest
from shards.messages import counted, print_stderr


class Start(NamedTuple):
    """Where training begins: after ``step`` updates, with the loader state of the checkpoint; None for a new run."""

    state: TrainState
    step: int
    loader_state: Content | None


def start_run(
    config: TrainConfig,
    *,
    run: StrPath,
    resume: str,
    classes: int,
    shards_spec: Preprocessing,
    device: str,
    ranks: Ranks,
    teacher: Teacher | None = None,
) -> Start:
    """Creates the state of ``run`` and loads the checkpoint to continue from, if there is one. All ranks must call it.

    Args:
        resume: see ``find_resume``.
        classes: number of identities in the shards.
        teacher: the network of ``config.teacher``.

    Raises:
        TrainingError, CheckpointError, RankError: the checkpoint cannot be used.
        SpecError: the preprocessing of the pretrained network differs from that of the shards.
        OptionError: see ``new_run``.
        TypeError: an argument has a wrong type.
    """
    check_config(config)
    check_argument(isinstance(shards_spec, Preprocessing), "shards_spec", shards_spec, "a Preprocessing")
    check_argument(isinstance(ranks, Ranks), "ranks", ranks, "Ranks, such as Ranks() for a single process")
    run = check_path("run", run)
    path = _agree_on_resume(run, resume, ranks)
    content = read_checkpoint(path) if path else None
    spec, weights, note = initial_network(config, shards_spec, content)
    if note and ranks.first:
        print_stderr(note)
    if teacher and teacher.network is None and content is not None:  # its name is in the checkpoint, not in config.json
        teacher = dataclasses.replace(teacher, name=str(content.get("teacher", {}).get("name", teacher.name)))
    state = new_run(
        config,
        classes=classes,
        preprocessing=spec,
        trained_on=shards_spec,
        device=device,
        ranks=ranks,
        weights=weights,
        teacher=teacher,
    )
    if path is None or content is None:
        return Start(state, step=0, loader_state=None)
    is_branch, origin = not checkpoints(run), _stated(run, "branched_from")
    if not is_branch:
        check_resumes(config, content["config"])
    step = state.restore(content, path)
    if not is_branch and step != int(path.stem):
        raise TrainingError(f"{path}: is the checkpoint of step {step}: rename it to {checkpoint_path(run, step).name}")
    if is_branch:
        origin = str(path.absolute())
        _announce_branch(config, content, path, ranks)
    state = dataclasses.replace(state, branched_from=origin)
    return Start(state, step=step, loader_state=content["loader_state"])


def _announce_branch(config: TrainConfig, content: Content, path: Path, ranks: Ranks) -> None:
    """Prints where a branch begins and what changes. Raises: TrainingError: no steps are left."""
    if content["step"] >= config.steps:
        raise TrainingError(f"{path}: has {counted(content['step'], 'step')} already; choose a higher --steps")
    different = changed(config, content["config"]).items()
    changes = [f"; {name} {before} -> {now}" for name, (before, now, when) in different if when == "branch"]
    if ranks.first:
        print_stderr(f"branches off from step {content['step']} of {path}{''.join(changes)}")


def known_teacher(run: Path, name: str | None) -> Teacher | None:
    """The teacher called ``name`` that ``run`` began with, without its network; None if there was no such one."""
    digest = _stated(run, "teacher_digest")
    return Teacher(str(name), digest) if digest and _stated(run, "teacher") == name else None


def _stated(run: Path, name: str) -> str | None:
    """Text in the config.json of ``run``; None if there is none, or it is damaged."""
    try:
        found = json.loads((run / CONFIG).read_bytes()).get(name)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def find_resume(run: StrPath, resume: str) -> Path | None:
    """The checkpoint to continue from, if any.

    Args:
        resume: ``auto``: the newest checkpoint of the run; ``never``: none; otherwise the path of a checkpoint. If the
            run branched off from that checkpoint before, its own newest one.

    Raises:
        TrainingError: the run folder is a file, holds a pipe, or has checkpoints that the run would mix with its own.
        TypeError: an argument has a wrong type.
    """
    run = check_path("run", run)
    expected = "auto, never or the path of a checkpoint"
    check_argument(isinstance(resume, str | os.PathLike), "resume", resume, expected)
    if run.exists() and not run.is_dir():
        raise TrainingError(f"{run}: is a file, expected a run folder; choose another --out")
    folder = checkpoint_path(run, 0).parent
    if folder.exists() and not folder.is_dir():  # found before the first checkpoint is written, after hours
        raise TrainingError(f"{folder}: is a file, expected a folder; delete it, or choose another --out")
    for entry in [*run.iterdir(), *checkpoints(run)] if run.exists() else []:
        if entry.exists() and not (entry.is_file() or entry.is_dir()):  # a pipe would block
            raise TrainingError(f"{entry}: neither a file nor a folder; delete it, or choose another --out")
    newest = next(reversed(checkpoints(run)), None)
    path = {"auto": newest, "never": None}.get(resume, Path(resume))
    if path and path.is_dir() and (own := checkpoints(path)):
        raise TrainingError(f"{path}: is a run folder; name one of its checkpoints, such as {own[-1]}")
    if newest is None:
        return path
    is_newest = path and os.path.realpath(path) == os.path.realpath(newest)
    if is_newest or (path and str(path.absolute()) == _stated(run, "branched_from")):
        return newest
    remedy = f" to continue from {path}" if path else ", or delete it"
    raise TrainingError(f"{run}: has a run up to step {int(newest.stem)}; choose another --out{remedy}")


def _agree_on_resume(run: Path, resume: str, ranks: Ranks) -> Path | None:
    """The checkpoint that rank 0 finds; checks that all ranks see the same file. A collective."""
    path = ranks.collect(lambda: find_resume(run, resume) if ranks.first else None)[0]
    if ranks.size == 1:
        return path
    runs = ranks.collect(lambda: bool(checkpoints(run)))
    if path is None and any(runs):
        raise TrainingError(
            f"{run}: rank {runs.index(True)} has a run there, and rank 0 has none; use a run folder that all processes share"
        )
    if path is None:
        return None
    digests = ranks.collect(lambda: quick_digest(path) if path.is_file() else None)
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise TrainingError(
                f"{path}: rank 0 and rank {rank} do not see the same file; use a run folder that all processes share"
            )
    return path


def initial_network(
    config: TrainConfig, shards_spec: Preprocessing, content: Content | None
) -> tuple[Preprocessing, dict[str, torch.Tensor] | None, str]:
    """Spec of the network's images, the weights that it starts from, if any, and what the user should know of them.

    Args:
        content: checkpoint to continue from; None for a new run.
    """
    if content is not None:
        return (Preprocessing.from_dict(content["preprocessing"]) if is_ours(content) else shards_spec), None, ""
    if config.pretrained is None:
        return shards_spec, None, ""
    network = load_network(Path(config.pretrained))
    network.check_trainable("trained further")
    return network.spec.fine_tuned_on(shards_spec), network.backbone.state_dict(), network.note
