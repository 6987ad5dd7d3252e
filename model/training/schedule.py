"""Learning rate schedules: the rate of each update as a factor of the peak rate."""

from __future__ import annotations

import math

from model.options import Options, Registry, option


class Schedule(Options):
    """The peak rate throughout.

    Base of the other schedules: linear warm-up, then ``after_warmup``.

    Source: Goyal et al., Accurate, large minibatch SGD, 2017 (warm-up).
    """

    kind = "schedule"
    name = "constant"
    warmup: float = option(0.0, max=1, help="fraction of the steps in which the rate rises linearly from 0")

    def factor_at(self, step: int, steps: int) -> float:
        """The factor for update number ``step``, counted from 0, of ``steps``."""
        warmup_steps = round(self.warmup * steps)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return self.after_warmup(step, steps, warmup_steps)

    def after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        """The factor for update number ``step`` >= ``warmup_steps``."""
        return 1.0


class StepSchedule(Schedule):
    """The rate is multiplied by a factor at milestones."""

    name = "step"
    at: tuple[float, ...] = option((0.4, 0.6, 0.8), max=1, help="milestones, as fractions of the steps")
    factor: float = option(0.1, max=1, min_open=True, help="factor of the rate at each milestone")

    def after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        return float(self.factor ** sum(step >= round(fraction * steps) for fraction in self.at))


class CosineSchedule(Schedule):
    """Half a cosine from the peak rate to the final rate (SGDR, 2017)."""

    name = "cosine"
    least: float = option(0.0, max=1, help="final rate, as a fraction of the peak rate")

    def after_warmup(self, step: int, steps: int, warmup_steps: int) -> float:
        """Source: Loshchilov & Hutter, SGDR, ICLR 2017."""
        progress = (step - warmup_steps) / max(steps - warmup_steps, 1)
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: Registry[Schedule] = Registry(StepSchedule, CosineSchedule, Schedule)
