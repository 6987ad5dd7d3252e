"""Classification heads by name: features and labels to logits.

A ``Head`` is a classifier with a margin. It can be sharded over ranks and can sample classes. Its logits,
``ClassScores``, are the input of the criteria in ``model.losses.functional``.
"""

from __future__ import annotations

from typing import ClassVar

from torch import distributed, nn

from model.heads.adaptive import AdaCos, AdaFace, ASoftmax
from model.heads.classifier import Head, LinearHead
from model.heads.margins import AMSoftmax, ArcFace, Plain, SVSoftmax
from model.heads.rows import HeadError
from model.heads.scores import ClassScores
from model.options import OptionError, Options, Registry, option
from model.sharding import Group

__all__ = ["HEADS", "ClassScores", "Head", "HeadError", "HeadOptions", "build_head"]


class HeadOptions(Options):
    """Options of a head; the defaults are the paper's.

    Attributes:
        rule: class of the margin.
        classifier: class of the head.
        min_classes: smallest number of classes.
    """

    kind = "head"
    rule: ClassVar[type[nn.Module]]
    classifier: ClassVar[type[Head]] = Head
    min_classes: ClassVar[int] = 1
    sample: float = option(1.0, max=1, min_open=True, help="fraction of the other classes that take part in a step")
    seed: int = option(0, help="seed of the samples")

    def build_rule(self, classes: int) -> nn.Module:
        """Builds the margin from the options that are not common to all heads."""
        common = HeadOptions.declared()
        return self.rule(**{name: value for name, value in self.values().items() if name not in common})

    def build(self, *, features: int, classes: int, group: Group | None = None) -> Head:
        """Builds a head with initial weights from PyTorch's default generator, which needs the same seed on all ranks.

        Args:
            features: dimension of an embedding.
            classes: number of classes of all ranks.
            group: ranks that share the classes; None for a single process.

        Raises:
            OptionError: too few classes.
        """
        ranks = 1 if group is None else distributed.get_world_size(group)
        needed = max(self.min_classes, ranks)
        if classes < needed:
            raise OptionError(
                f"head {self.name}: {classes} classes on {ranks} ranks, expected at least {needed}; add identities"
            )
        return self.classifier(
            self.build_rule(classes),
            features=features,
            classes=classes,
            sample=self.sample,
            seed=self.seed,
            group=group if ranks > 1 else None,
        )


class SoftmaxOptions(HeadOptions):
    """Dot products and a bias, without normalisation."""

    name = "softmax"
    rule = Plain
    classifier = LinearHead


class ASoftmaxOptions(HeadOptions):
    """Multiplicative angular margin (SphereFace, 2017), annealed."""

    name = "asoftmax"
    rule = ASoftmax
    margin: int = option(4, min=1, help="factor m of the angle")
    base: float = option(1000.0, help="weight lambda of the plain cosine in the first step")
    decay: float = option(0.12, help="decay of lambda per step")
    least: float = option(5.0, help="final lambda")


class AMSoftmaxOptions(HeadOptions):
    """Additive cosine margin (AM-Softmax, CosFace, 2018)."""

    name = "amsoftmax"
    rule = AMSoftmax
    scale: float = option(30.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.35, max=1, help="margin m")


class ArcFaceOptions(HeadOptions):
    """Additive angular margin (ArcFace, 2019)."""

    name = "arcface"
    rule = ArcFace
    scale: float = option(64.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.5, max=1.5, help="margin m in radians")


class AdaFaceOptions(HeadOptions):
    """Margin by image quality, estimated from the norm of the feature (AdaFace, 2022)."""

    name = "adaface"
    rule = AdaFace
    scale: float = option(64.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.4, max=1, help="margin m")
    h: float = option(
        0.333, min_open=True, help="concentration of the quality: quality 1 is 1/h deviations of the norm"
    )
    momentum: float = option(0.01, max=1, help="weight of a batch in the averages of the norm")


class AdaCosOptions(HeadOptions):
    """Adaptive scale, no margin (AdaCos, 2019)."""

    name = "adacos"
    min_classes = 3
    dynamic: bool = option(True, help="false keeps the initial scale, set by the number of classes")

    def build_rule(self, classes: int) -> nn.Module:
        return AdaCos(classes=classes, dynamic=self.dynamic)


class SVSoftmaxOptions(HeadOptions):
    """Additive cosine margin with more weight on support vectors (SV-AM-Softmax, 2018)."""

    name = "svsoftmax"
    rule = SVSoftmax
    scale: float = option(30.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.35, max=1, help="margin m")
    t: float = option(1.2, min=1, help="weight of support vectors")


HEADS: Registry[HeadOptions] = Registry(
    SoftmaxOptions, ASoftmaxOptions, AMSoftmaxOptions, ArcFaceOptions, AdaFaceOptions, AdaCosOptions, SVSoftmaxOptions
)


def build_head(name: str, *, features: int, classes: int, group: Group | None = None, **options: object) -> Head:
    """Builds a head by name; see ``HeadOptions.build``.

    Args:
        name: a key of ``HEADS``.
        options: of that head; missing options take their defaults.

    Raises:
        OptionError: unknown name or option, invalid value, or too few classes.
    """
    return HEADS.build(name, options).build(features=features, classes=classes, group=group)
