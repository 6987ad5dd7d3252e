"""The learning rate of each update, as a share of its peak."""

from __future__ import annotations

import math
from typing import Any

from model.choice import Choice
from model.options import Option, OptionError, checked

_WARMUP = Option(default=0.0, most=1.0, about="share of the steps in which the rate rises from 0")
SCHEDULES: dict[str, dict[str, Option]] = {
    "step": {
        "at": Option(default=(0.4, 0.6, 0.8), most=1.0, about="shares of the steps at which the rate is multiplied"),
        "factor": Option(default=0.1, most=1.0, with_least=False, about="by which"),
        "warmup": _WARMUP,
    },
    "cosine": {"least": Option(default=0.0, most=1.0, about="share of the peak in the end"), "warmup": _WARMUP},
    "constant": {"warmup": _WARMUP},
}


def resolved_schedule(choice: Choice) -> Choice:
    """The choice with all its options. Raises: OptionError: unknown schedule or option, or a value out of range."""
    if choice.name not in SCHEDULES:
        raise OptionError(f"schedule {choice.name!r} is unknown; choose from {', '.join(SCHEDULES)}")
    return Choice(choice.name, checked(f"schedule {choice.name}", SCHEDULES[choice.name], choice.options))


def rate_share(schedule: Choice, step: int, steps: int) -> float:
    """The share of the peak rate for update number ``step``, counted from 0, of ``steps``.

    Source: Goyal et al., Accurate, large minibatch SGD, 2017 (warm-up); Loshchilov & Hutter, SGDR, ICLR 2017 (cosine).
    """
    options: dict[str, Any] = schedule.options
    rising = round(options["warmup"] * steps)
    if step < rising:
        return (step + 1) / rising
    if schedule.name == "step":
        return float(options["factor"] ** sum(step >= round(share * steps) for share in options["at"]))
    if schedule.name == "cosine":
        done = (step - rising) / max(steps - rising, 1)
        return float(options["least"] + (1 - options["least"]) * (1 + math.cos(math.pi * done)) / 2)
    return 1.0
