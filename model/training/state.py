"""TrainState: everything that training changes; created, saved and restored, for any number of processes."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.backbones.stages import freeze_stages
from model.formats.checkpoint import checkpoint_path, checkpoints, is_ours, save_checkpoint
from model.inputs import on_device
from model.sharding import gather_rows
from model.training.config import TrainConfig, TrainingError
from model.training.learner import Learner
from model.training.ranks import Ranks
from pipeline.spec import Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """Learner, optimizer and averaged weights of a run.

    Attributes:
        averaged: exponential moving average of the backbone, or None.
        trained_on: spec of the shards. It differs from the spec of the learner, which is that of the network, where a
            network for aligned images is fine-tuned on unaligned ones.
    """

    learner: Learner
    optimizer: torch.optim.Optimizer
    averaged: AveragedModel | None
    ranks: Ranks
    trained_on: Preprocessing

    @property
    def eval_backbone(self) -> nn.Module:
        """The backbone to evaluate: the averaged one if there is one."""
        return self.learner.backbone if self.averaged is None else self.averaged.module

    def finite(self) -> bool:
        """True if all weights are finite. Synchronises with the device."""
        return all(bool(torch.isfinite(weight).all()) for weight in self.learner.parameters())

    def content(self, step: int, loader_state: dict[str, Any]) -> dict[str, Any]:
        """The content of a checkpoint. A collective."""
        learner = self.learner
        return {
            "step": step,
            "config": learner.config.to_dict(),
            "preprocessing": learner.preprocessing.to_dict(),
            "trained_on": self.trained_on.to_dict(),
            "backbone": str(learner.config.backbone),
            "backbone_state": learner.backbone.state_dict(),
            "averaged_state": {} if self.averaged is None else self.averaged.module.state_dict(),
            "head_state": learner.head.full_state(),
            "center_state": learner.center.full_state() if hasattr(learner, "center") else {},
            "optimiser_state": self._optimizer_state(),
            "loader_state": loader_state,
        }

    def save(self, run: Path, step: int, loader_state: dict[str, Any]) -> None:
        """Writes the checkpoint of ``step`` and deletes all but the newest ``config.keep``. A collective."""
        content = self.content(step, loader_state)
        if self.ranks.first:
            save_checkpoint(checkpoint_path(run, step), content)
            for old in checkpoints(run)[: -self.learner.config.keep]:
                old.unlink()

    def restore(self, content: dict[str, Any], path: Path) -> int:
        """Loads a checkpoint; returns its number of updates.

        Raises:
            TrainingError: the configuration, preprocessing or identities of the checkpoint differ from the run's.
        """
        self._check(content, path)
        learner = self.learner
        learner.backbone.load_state_dict(content["backbone_state"])
        learner.head.load_full_state(content["head_state"])
        if content.get("center_state"):
            learner.center.load_full_state(content["center_state"])
        if self.averaged is not None:
            self.averaged.module.load_state_dict(content["averaged_state"])
            self.averaged.n_averaged.fill_(content["step"])
        self._load_optimizer(content["optimiser_state"])
        return int(content["step"])

    def _check(self, content: dict[str, Any], path: Path) -> None:
        config = self.learner.config
        if not is_ours(content):
            raise TrainingError(
                f"{path}: a bare state dict, without optimizer and loader state; --resume needs a checkpoint of this tool,"
                " --from takes weights alone"
            )
        config.check_resumes(content["config"])
        if content["config"]["steps"] != config.steps and self.ranks.first:
            was, now = content["config"]["steps"], config.steps
            print(f"--steps was {was}, now {now}: the learning rate schedule changes with it", file=sys.stderr)
        saved = content.get("trained_on", content["preprocessing"])
        differing = [name for name, value in self.trained_on.to_dict().items() if saved.get(name) != value]
        if differing:
            raise TrainingError(
                f"{path}: its preprocessing differs from the shards' in {', '.join(differing)}; use the shards it started with"
            )
        classes = len(content["head_state"]["weight"])
        if classes != self.learner.classes:
            raise TrainingError(f"{path}: has {classes} identities, the shards have {self.learner.classes}")

    def _sharded(self) -> set[int]:
        """Indices, as in the optimizer's state dict, of the parameters that are sharded over the ranks."""
        head = {id(parameter) for parameter in self.learner.head.parameters()} if self.learner.head.group else set()
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return {index for index, parameter in enumerate(trained) if id(parameter) in head}

    def _optimizer_state(self) -> dict[str, Any]:
        """The state dict that the optimizer of a single process would have. A collective."""
        content, head = self.optimizer.state_dict(), self.learner.head
        for index in sorted(self._sharded()):
            assert head.group is not None
            content["state"][index] = {
                name: gather_rows(value, head.classes, head.group) if _has_rows(value) else value
                for name, value in content["state"].get(index, {}).items()
            }
        return content

    def _load_optimizer(self, content: dict[str, Any]) -> None:
        sharded, rows = self._sharded(), slice(self.learner.head.start, self.learner.head.stop)
        state = {
            index: {
                name: value[rows] if index in sharded and _has_rows(value) else value for name, value in values.items()
            }
            for index, values in content["state"].items()
        }
        groups = [
            {**ours, "params": saved["params"]}
            for ours, saved in zip(self.optimizer.state_dict()["param_groups"], content["param_groups"], strict=True)
        ]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _has_rows(value: object) -> TypeGuard[torch.Tensor]:
    """True for state with a row per class, False for scalars such as the step."""
    return isinstance(value, torch.Tensor) and value.dim() > 0


def new_run(
    config: TrainConfig,
    *,
    classes: int,
    preprocessing: Preprocessing | Mapping[str, Any],
    trained_on: Preprocessing | None = None,
    device: str = "cpu",
    ranks: Ranks | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> TrainState:
    """A freshly initialised run; seeds PyTorch.

    Args:
        classes: number of identities.
        preprocessing: spec of the network's images; a mapping gives the fields that differ from the default.
        trained_on: spec of the shards, if it differs.
        weights: initial state dict of the backbone.

    Raises:
        OptionError: the backbone does not accept the size of the images, or has too few stages to freeze.
        TrainingError: the weights do not fit the backbone.
    """
    ranks = ranks or Ranks()
    if not isinstance(preprocessing, Preprocessing):
        preprocessing = Preprocessing(**preprocessing)
    torch.manual_seed(config.seed)
    learner = Learner(config, classes=classes, preprocessing=preprocessing, device=device, ranks=ranks)
    if weights is not None:
        _load_weights(learner, weights)
    learner = on_device(learner, device)
    freeze_stages(learner.backbone, config.freeze, preprocessing.size)
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = config.optimizer.build(trained, lr=config.lr, weight_decay=config.weight_decay)
    averaged = None
    if config.ema:
        averaged = AveragedModel(learner.backbone, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)  # type: ignore[no-untyped-call]
    return TrainState(
        learner=learner,
        optimizer=optimizer,
        averaged=averaged,
        ranks=ranks,
        trained_on=preprocessing if trained_on is None else trained_on,
    )


def _load_weights(learner: Learner, weights: dict[str, torch.Tensor]) -> None:
    try:
        learner.backbone.load_state_dict(weights)
    except RuntimeError as error:
        config = learner.config
        reason = str(error).splitlines()[-1].strip()
        raise TrainingError(f"{config.pretrained}: its weights do not fit {config.backbone} ({reason})") from None


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds PyTorch for one update, so that dropout is the same in a resumed run."""
    digest = hashlib.blake2b(f"{seed},{step},{rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little") >> 1)
