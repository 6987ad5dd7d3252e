"""Guard: what happens to steps whose loss or gradient is not finite, and the loss scale of fp16."""

from __future__ import annotations

import math
from collections.abc import Mapping

from model.training.config import TrainConfig
from shards.messages import counted

FIRST_SCALE, MAX_SCALE = 2.0**16, 2.0**24
GROWTH_STEPS = 2000  # finite steps in a row after which the scale doubles


class Guard:
    """Counts skipped steps, and scales the loss of fp16 so that small gradients do not vanish.

    A gradient that is not finite halves the scale if it is above 1, and no update is made: the scale was too high. Other
    steps that are not finite are skipped, up to ``config.max_skipped`` of them in a run. All ranks call the same methods.

    Attributes:
        scale: what the loss is multiplied by; 1 unless the precision is fp16.
        skipped: steps that were skipped because they were not finite.
        made, missed: steps of this process with and without an update.

    Source: Micikevicius et al., Mixed precision training, ICLR 2018; first value and growth as ``torch.amp.GradScaler``.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._limit, self._scales = config.max_skipped, config.precision == "fp16"
        self.scale = FIRST_SCALE if self._scales else 1.0
        self.skipped = self.made = self.missed = self._good_steps = 0

    @property
    def active(self) -> bool:
        """True if a step that is not finite may not be the end of the run, so that each has to be checked."""
        return self._scales or self._limit > 0

    def accept(self) -> None:
        """Counts a finite step; after enough of them the loss scale doubles."""
        self.made += 1
        if self._scales:
            self._good_steps += 1
            if self._good_steps == GROWTH_STEPS:
                self.scale, self._good_steps = min(2 * self.scale, MAX_SCALE), 0

    def forgive(self, *, loss_finite: bool) -> str | None:
        """Returns what happens after a step that is not finite; None if it ends the run."""
        self._good_steps = 0
        self.missed += 1
        if loss_finite and self._scales and self.scale > 1:
            self.scale /= 2
            return f"loss scale {self.scale:g}"
        if self.skipped >= self._limit:
            return None
        self.skipped += 1
        return f"skipped, {self.skipped} of {self._limit}"

    def remark(self) -> str | None:
        """How many steps of this process made no update, and what to do; None if it was less than a tenth of them."""
        steps = self.made + self.missed
        if not self.missed or 10 * self.missed < steps:
            return None
        remedy = "use --precision bf16 or a lower --lr" if self._scales else "use a lower --lr"
        if not self.skipped:  # the scale was too high each time
            remedy = f"choose a higher --steps, as fp16 first looks for its loss scale ({self.scale:,.0f}), or --precision bf16"
        found = f"{self.missed:,} of {counted(steps, 'step')} made no update"
        return f"{found}: their loss or a gradient was not finite; {remedy}"

    def metrics(self) -> dict[str, float]:
        """What to log."""
        found: dict[str, float] = {"skipped": self.skipped} if self._limit else {}
        return {**found, "loss_scale": self.scale} if self._scales else found

    def state(self) -> dict[str, float]:
        """What a checkpoint holds; empty if there is nothing to restore."""
        if not self.active:
            return {}
        return {"scale": self.scale, "good_steps": self._good_steps, "skipped": self.skipped}

    def load(self, state: Mapping[str, float]) -> None:
        """Restores ``state()`` of the same run or of one that this run branches off from.

        Raises:
            KeyError, TypeError, ValueError: it is not what ``state`` returned.
        """
        if not state:
            return
        scale, good, skipped = float(state["scale"]), int(state["good_steps"]), int(state["skipped"])
        if not (math.isfinite(scale) and 1 <= scale <= MAX_SCALE and 0 <= good < GROWTH_STEPS and skipped >= 0):
            raise ValueError(f"a loss scale of {scale}, {good} steps, {skipped} skipped")
        self.skipped = skipped
        if self._scales:
            self.scale, self._good_steps = scale, good
