"""Classification heads by name: features and labels to logits.

``build_head`` gives a ``Head``: a classifier, whole or sharded, all classes a step or a sample, and a margin rule.
What it returns, ``ClassScores``, goes to a criterion of ``model.losses.functional``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from torch import distributed, nn

from model.choice import Choice
from model.heads.adaptive import AdaCos, AdaFace, ASoftmax
from model.heads.classifier import Head, LinearHead
from model.heads.margins import AMSoftmax, ArcFace, Plain, SVSoftmax
from model.heads.rows import HeadError
from model.heads.scores import ClassScores
from model.options import Option, OptionError, checked
from model.sharding import Group

__all__ = [
    "COMMON_OPTIONS",
    "HEADS",
    "ClassScores",
    "Head",
    "HeadError",
    "HeadKind",
    "Option",
    "build_head",
    "resolved_head",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadKind:
    """A head in the registry.

    Attributes:
        about: one line.  options: what it can be told, the paper's values as defaults.
        margin: makes the rule from ``classes`` and the options.  classifier: the scores that the rule is given.
        least_classes: that it can tell apart.
    """

    about: str
    margin: Callable[..., nn.Module]
    options: dict[str, Option] = dataclasses.field(default_factory=dict)
    classifier: type[Head] = Head
    least_classes: int = 1


def _scale(default: float) -> Option:
    return Option(default=default, with_least=False, about="scale s of the cosines")


def _margin(default: float, most: float = 1.0) -> Option:
    return Option(default=default, most=most, about="margin m")


def _of_any_number(margin: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    return lambda classes, **options: margin(**options)


HEADS: dict[str, HeadKind] = {
    "softmax": HeadKind(
        about="dot products and a bias, nothing normalised", margin=_of_any_number(Plain), classifier=LinearHead
    ),
    "asoftmax": HeadKind(
        about="multiplicative angular margin (SphereFace, 2017), annealed",
        margin=_of_any_number(ASoftmax),
        options={
            "margin": Option(default=4, least=1, about="factor m of the angle"),
            "base": Option(default=1000.0, about="weight lambda of the plain cosine in the first step"),
            "decay": Option(default=0.12, about="how fast lambda falls, per step"),
            "least": Option(default=5.0, about="lambda in the end"),
        },
    ),
    "amsoftmax": HeadKind(
        about="additive cosine margin (AM-Softmax, CosFace, 2018)",
        margin=_of_any_number(AMSoftmax),
        options={"scale": _scale(30.0), "margin": _margin(0.35)},
    ),
    "arcface": HeadKind(
        about="additive angular margin (ArcFace, 2019)",
        margin=_of_any_number(ArcFace),
        options={"scale": _scale(64.0), "margin": _margin(0.5, most=1.5)},
    ),
    "adaface": HeadKind(
        about="margin by image quality, told from the feature's norm (AdaFace, 2022)",
        margin=_of_any_number(AdaFace),
        options={
            "scale": _scale(64.0),
            "margin": _margin(0.4),
            "h": Option(default=0.333, with_least=False, about="deviations of the norm that make quality 1, inverted"),
            "momentum": Option(default=0.01, most=1.0, about="weight of a batch in the averages of the norm"),
        },
    ),
    "adacos": HeadKind(
        about="a scale that follows the training, no margin (AdaCos, 2019)",
        margin=AdaCos,
        options={"dynamic": Option(default=True, about="false: the scale stays as the number of classes sets it")},
        least_classes=3,
    ),
    "svsoftmax": HeadKind(
        about="additive cosine margin, support vectors count more (SV-AM-Softmax, 2018)",
        margin=_of_any_number(SVSoftmax),
        options={
            "scale": _scale(30.0),
            "margin": _margin(0.35),
            "t": Option(default=1.2, least=1.0, about="how much more support vectors count"),
        },
    ),
}

COMMON_OPTIONS = {
    "sample": Option(default=1.0, most=1.0, with_least=False, about="share of the other classes in a step"),
    "seed": Option(default=0, about="of the samples"),
}


def resolved_head(choice: Choice) -> Choice:
    """The choice with all its options. Raises: OptionError: unknown head or option, or a value out of range."""
    if choice.name not in HEADS:
        raise OptionError(f"head {choice.name!r} is unknown; choose from {', '.join(HEADS)}")
    known = {**HEADS[choice.name].options, **COMMON_OPTIONS}
    return Choice(choice.name, checked(f"head {choice.name}", known, choice.options))


def build_head(
    name: str,
    *,
    features: int,
    classes: int,
    group: Group | None = None,
    **options: Any,
) -> Head:
    """A freshly initialised head; its weights come from PyTorch's default generator (seed all ranks alike).

    Args:
        features: dimension of an embedding.  classes: of all ranks together.
        group: ranks to share the classes among; None, or a group of one, for a head in one piece.
        options: of ``HEADS[name].options``; ``sample``, the share of the classes not in the batch that take part in a
            step, chosen by ``seed`` and the step's number.

    Raises:
        OptionError: unknown name or option, a value out of range, or too few classes.
    """
    chosen = resolved_head(Choice(name, options)).options
    kind, sample, seed = HEADS[name], chosen.pop("sample"), chosen.pop("seed")
    ranks = 1 if group is None else distributed.get_world_size(group)
    least = max(kind.least_classes, ranks)
    if classes < least:
        raise OptionError(f"head {name}: {classes} classes on {ranks} ranks, expected at least {least}; add identities")
    make = functools.partial(kind.classifier, kind.margin(classes=classes, **chosen))
    return make(features=features, classes=classes, sample=sample, seed=seed, group=group if ranks > 1 else None)
