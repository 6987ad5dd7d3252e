"""TrainState: everything that training changes; created, saved and restored, for any number of processes."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.backbones.stages import freeze_stages
from model.errors import DAMAGE_ERRORS, MORE_MEMORY, CheckpointError, explained_memory, one_line
from model.finite import all_finite
from model.formats.checkpoint import Content, checkpoint_path, checkpoints, is_ours, save_checkpoint
from model.inputs import check_device, on_device
from model.options import OptionError
from model.sharding import gather_rows
from model.training.averages import MovingAverage
from model.training.changes import check_resumes
from model.training.config import TrainConfig, TrainingError
from model.training.guard import Guard
from model.training.learner import Learner
from model.training.ranks import Ranks
from model.training.teacher import Teacher
from pipeline.spec import Preprocessing
from shards.arguments import check_argument, check_whole
from shards.messages import counted, print_stderr


@dataclasses.dataclass(frozen=True, repr=False)
class TrainState:
    """Learner, optimizer and averaged weights of a run.

    Attributes:
        averaged: exponential moving average of the backbone, or None.
        trained_on: spec of the shards. The network's differs after fine-tuning an aligned network on unaligned images.
        guard: what happens to steps that are not finite.
        teacher: the network whose embeddings are targets, or None.
        branched_from: checkpoint of another run from which this run went on.
    """

    learner: Learner
    optimizer: torch.optim.Optimizer
    averaged: MovingAverage | None
    ranks: Ranks
    trained_on: Preprocessing
    guard: Guard
    teacher: Teacher | None = None
    branched_from: str | None = None

    def __repr__(self) -> str:
        return f"TrainState({self.learner.config!r}, {counted(self.learner.classes, 'class')})"

    @property
    def eval_backbone(self) -> nn.Module:
        """The backbone to evaluate: the averaged one if there is one."""
        return self.learner.backbone if self.averaged is None else self.averaged.module

    def finite(self) -> bool:
        """True if all ranks have finite weights, buffers, averages and momenta. Synchronises; a collective."""
        tensors = [*self.learner.state_dict().values()]
        tensors += self.averaged.state_dict().values() if self.averaged else ()
        tensors += [value for values in self.optimizer.state.values() for value in values.values()]
        return not self.ranks.any(not all_finite(value for value in tensors if torch.is_tensor(value)))

    def content(self, step: int, loader_state: Content) -> Content:
        """The content of a checkpoint, the same for any number of ranks. A collective.

        If the head is sharded, ranks other than the first lack its rows, which may take gigabytes.
        """
        learner, head, keep = self.learner, self.learner.head, self.ranks.first
        return {
            "step": step,
            "config": learner.config.to_dict(),
            "preprocessing": learner.preprocessing.to_dict(),
            "trained_on": self.trained_on.to_dict(),
            "backbone": str(learner.config.backbone),
            "backbone_state": learner.backbone.state_dict(),
            "averaged_state": {} if self.averaged is None else self.averaged.module.state_dict(),
            "head_state": head.full_state(keep=keep),
            "center_state": learner.center.full_state(keep=keep) if hasattr(learner, "center") else {},
            "optimiser_state": self._convert_rows(
                self.optimizer.state_dict(),
                lambda rows: gather_rows(rows, head.classes, head.group, keep=keep),  # type: ignore[arg-type]
            ),
            "guard_state": self.guard.state(),
            "loader_state": loader_state,
            **({"teacher": self.teacher.to_dict()} if self.teacher else {}),
        }

    def save(self, run: Path, step: int, loader_state: Content) -> None:
        """Writes the checkpoint of ``step`` and deletes all but the newest ``config.keep``. A collective.

        Raises:
            TrainingError: a weight is not finite; nothing is written.
        """
        if not self.finite():
            raise TrainingError(f"a weight is not finite after step {step}: it is not saved; {self.lower_rate(run)}")
        content = self.content(step, loader_state)
        if self.ranks.first:
            save_checkpoint(checkpoint_path(run, step), content)
            for old in checkpoints(run)[: -self.learner.config.keep]:
                old.unlink()

    def lower_rate(self, run: Path) -> str:
        """How to go on with a lower learning rate after the run diverged."""
        lr = self.learner.config.lr
        saved = checkpoints(run)
        if not saved:
            return f"start over with a lower --lr (it is {lr:g})"
        options = f"--resume {shlex.quote(str(saved[-1]))} --out NEW --lr {lr / 10:g}"
        return f"add {options} (it is {lr:g}) to go on from step {int(saved[-1].stem)} with a lower rate"

    def restore(self, content: Content, path: Path) -> int:
        """Loads a checkpoint; returns its number of updates. A collective.

        Raises:
            TrainingError: the configuration, preprocessing or identities of the checkpoint differ from the run's in
                what even a branch must keep, or its weights are not finite.
            CheckpointError: its head or another part does not fit.
        """
        self._check(content, path)
        try:
            with explained_memory(MORE_MEMORY):
                self._load(content)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except DAMAGE_ERRORS as error:  # the content may come from anywhere
            raise CheckpointError(
                f"{path}: its state does not fit this run ({one_line(error)}); continue from another checkpoint, or"
                " start a new run in another --out"
            ) from None
        if not self.finite():
            raise TrainingError(
                f"{path}: a weight is not finite; delete it to use the previous one, or --resume another"
            )
        return int(content["step"])

    def _load(self, content: Content) -> None:
        learner = self.learner
        self.guard.load(content.get("guard_state", {}))
        learner.backbone.load_state_dict(content["backbone_state"])
        learner.head.load_full_state(content["head_state"])
        if content.get("center_state"):
            learner.center.load_full_state(content["center_state"])
        if self.averaged is not None:  # a branch may be the first to average
            self.averaged.module.load_state_dict(content.get("averaged_state") or content["backbone_state"])
            self.averaged.n_averaged.fill_(content["step"])
        saved = content["optimiser_state"]
        groups = zip(self.optimizer.state_dict()["param_groups"], saved["param_groups"], strict=True)
        optimizer = {**saved, "param_groups": [{**ours, "params": theirs["params"]} for ours, theirs in groups]}
        rows = slice(learner.head.start, learner.head.stop)
        optimizer = self._convert_rows(optimizer, lambda whole: whole[rows].clone())  # not a view that keeps the whole
        self._check_buffers(optimizer["state"])
        self.optimizer.load_state_dict(optimizer)

    def _check_buffers(self, state: dict[int, dict[str, torch.Tensor | None]]) -> None:
        """Validates the optimizer's state, which PyTorch first reads at the next update. Raises: ValueError."""
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        names = self.learner.config.optimizer.buffers
        for index, buffers in state.items():
            for name, value in buffers.items():
                shapes = [(), tuple(trained[index].shape)]
                if value is not None and not (value.is_floating_point() and tuple(value.shape) in shapes):
                    raise ValueError(f"{name} of weight {index} does not fit")
            if set(buffers) != names:
                raise ValueError(f"weight {index} has {', '.join(buffers) or 'nothing'}, expected {', '.join(names)}")

    def _check(self, content: Content, path: Path) -> None:
        config = self.learner.config
        if not is_ours(content):
            raise TrainingError(f"{path}: a bare state dict, without optimizer and loader state; pass it to --from")
        check_resumes(config, content["config"], branch=True)
        steps = content["config"].get("steps")
        if not isinstance(steps, int):
            raise CheckpointError(f"{path}: steps of its config is {steps!r}, expected an integer")
        if steps != config.steps and content["step"] < config.steps and self.ranks.first:
            print_stderr(f"--steps was {steps}, now {config.steps}: the learning rate schedule changes too")
        saved = content["trained_on" if "trained_on" in content else "preprocessing"]
        names = ", ".join(name for name, value in self.trained_on.to_dict().items() if saved.get(name) != value)
        if names:
            raise TrainingError(
                f"{path}: its preprocessing differs from the shards' in {names}; use the shards it was trained on"
            )
        if self.teacher:
            self.teacher.check_same(content.get("teacher", {}), path)
        weight = content["head_state"].get("weight")
        if not isinstance(weight, torch.Tensor) or not weight.dim():
            raise CheckpointError(f"{path}: its head has no weights; continue from another checkpoint")
        classes = len(weight)
        if classes != self.learner.classes:
            raise TrainingError(
                f"{path}: has {counted(classes, 'identity')}, the shards have {self.learner.classes:,}; use the shards it was trained on"
            )

    def _convert_rows(self, content: Content, convert: Callable[[torch.Tensor], torch.Tensor]) -> Content:
        """An optimizer's state dict, with ``convert`` applied to tensors of a row per class if the head is sharded."""
        head = {id(parameter) for parameter in self.learner.head.parameters()} if self.learner.head.group else set()
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        state = {
            index: {
                name: convert(value) if id(trained[index]) in head and torch.is_tensor(value) and value.dim() else value
                for name, value in values.items()
            }
            for index, values in sorted(content["state"].items())
        }
        return {**content, "state": state}


def new_run(
    config: TrainConfig,
    *,
    classes: int,
    preprocessing: Preprocessing | Mapping[str, Any],
    trained_on: Preprocessing | None = None,
    device: str = "cpu",
    ranks: Ranks | None = None,
    weights: dict[str, torch.Tensor] | None = None,
    teacher: Teacher | None = None,
) -> TrainState:
    """A freshly initialised run; seeds PyTorch.

    Args:
        classes: number of identities.
        preprocessing: spec of the network's images; a mapping gives the fields that differ from the default.
        trained_on: spec of the shards, if it differs.
        weights: initial state dict of the backbone.
        teacher: the network of ``config.teacher``.

    Raises:
        OptionError: the backbone does not accept the size of the images or has too few stages to freeze, or the batch of
            a process has fewer identities than parts.
        TrainingError: the weights do not fit the backbone.
        TypeError: an argument has a wrong type.
    """
    check_config(config)
    classes = check_whole("classes", classes)
    expected = "a Preprocessing, or a dict of its fields"
    check_argument(isinstance(preprocessing, Preprocessing | Mapping), "preprocessing", preprocessing, expected)
    check_argument(isinstance(trained_on, Preprocessing | None), "trained_on", trained_on, "a Preprocessing, or None")
    check_argument(isinstance(ranks, Ranks | None), "ranks", ranks, "Ranks, or None for a single process")
    check_argument(isinstance(weights, Mapping | None), "weights", weights, "the state dict of a backbone, or None")
    check_argument(
        isinstance(teacher, Teacher | None), "teacher", teacher, "a Teacher, such as Teacher.of(network), or None"
    )
    check_device(device)
    device, ranks = str(device), ranks or Ranks()
    if config.accumulate > config.batch_size // ranks.size:
        raise OptionError(
            f"accumulate is {config.accumulate}, but a process has {config.batch_size // ranks.size:,} of"
            f" {counted(config.batch_size, 'identity')}; choose at most that many parts"
        )
    if not isinstance(preprocessing, Preprocessing):
        preprocessing = Preprocessing(**preprocessing)
    torch.manual_seed(config.seed)
    learner = Learner(config, classes=classes, preprocessing=preprocessing, device=device, ranks=ranks, teacher=teacher)
    if weights is not None:
        _load_weights(learner, weights)
    learner = on_device(learner, device)
    freeze_stages(learner.backbone, config.freeze, preprocessing.size)
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = config.optimizer.build(trained, lr=config.lr, weight_decay=config.weight_decay)
    averaged = MovingAverage(learner.backbone, config.ema) if config.ema else None
    trained_on, guard = trained_on or preprocessing, Guard(config)
    return TrainState(learner, optimizer, averaged, ranks, trained_on=trained_on, guard=guard, teacher=teacher)


def check_config(config: TrainConfig) -> None:
    """Raises: TypeError: no TrainConfig."""
    check_argument(isinstance(config, TrainConfig), "config", config, "a TrainConfig, such as TrainConfig(steps=1000)")


def _load_weights(learner: Learner, weights: dict[str, torch.Tensor]) -> None:
    try:
        learner.backbone.load_state_dict(weights)
    except RuntimeError as error:
        config = learner.config
        which = f"{config.pretrained}: its weights" if config.pretrained else "weights"
        raise TrainingError(f"{which} do not fit {config.backbone} ({one_line(error)})") from None


def seed_step(seed: int, step: int, part: int = 0) -> None:
    """Seeds PyTorch for one update, so that dropout is the same in a resumed run and on all ranks.

    Args:
        part: number of the part of the batch, if it goes through the backbone in several.
    """
    digest = hashlib.blake2b(f"{seed},{step},{part}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)
