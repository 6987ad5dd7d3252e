"""Loss terms by name, and the text form of their sum: ``cross-entropy+hardest-triplet:margin=1``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from model.heads.scores import ClassScores
from model.losses.center import CenterLoss
from model.losses.distillation import cosine_distances, relational, squared_distances
from model.losses.functional import DISTANCES, cross_entropy, focal, focal_of, hardest_triplet, octuplet, view_means
from model.options import OptionError, Options, Registry, option
from model.sharding import Group


class LossTerm(Options):
    """One term of a loss.

    Attributes:
        slot: the field of ``Losses`` that it fills.
    """

    kind = "loss"
    slot: ClassVar[str]


class Criterion(LossTerm):
    """A loss of the head's logits."""

    slot = "criterion"
    label: ClassVar[str]  # in the log

    def __call__(self, logits: ClassScores, views: int) -> torch.Tensor:
        """Logits of V*b images, view after view -> (V,) mean loss of each view."""
        raise NotImplementedError


class MetricLoss(LossTerm):
    """A loss of the embeddings of several images of each identity."""

    slot = "metric"
    weight: float = option(1.0, help="weight of the term in the sum")
    margin: float = option(1.0, help="margin in units of 1 - cosine")

    def __call__(self, features: torch.Tensor, labels: torch.Tensor, copies: Sequence[int]) -> torch.Tensor:
        """(N, D) features, view after view, and (N,) labels -> scalar, unweighted.

        Args:
            copies: images of an identity in each view.
        """
        raise NotImplementedError


class CrossEntropy(Criterion):
    """Cross-entropy of the head's logits, averaged over the views."""

    name = "cross-entropy"
    label = "ce"

    def __call__(self, logits: ClassScores, views: int) -> torch.Tensor:
        return view_means(cross_entropy(logits), views)


class Focal(Criterion):
    """Focal loss (2017): cross-entropy with less weight on images that are classified well.

    With ``form`` ``reference``, as that of Lai & Lam, the weight is that of the mean cross-entropy of a view.
    """

    name = label = "focal"
    gamma: float = option(2.0, help="focusing parameter; 0 gives the cross-entropy")
    form: str = option(
        "paper",
        choices=("paper", "reference"),
        help="weight by image (paper), or by the mean cross-entropy of a view (reference)",
    )

    def __call__(self, logits: ClassScores, views: int) -> torch.Tensor:
        if self.form == "reference":
            return focal_of(view_means(cross_entropy(logits), views), self.gamma)
        return view_means(focal(logits, self.gamma), views)


class HardestTriplet(MetricLoss):
    """Hardest triplets over all images, of any resolution (Lai & Lam, 2021)."""

    name = "hardest-triplet"

    def __call__(self, features: torch.Tensor, labels: torch.Tensor, copies: Sequence[int]) -> torch.Tensor:
        return hardest_triplet(features, labels, self.margin)


class Octuplet(MetricLoss):
    """Triplets HR-HR, HR-LR, LR-HR, LR-LR (Octuplet loss, 2023); the first view is HR.

    For ``form`` ``lrfr``, each of several images in a view counts as a view of its own.
    """

    name = "octuplet"
    margin: float = option(0.5, help="margin in units of the distance")
    form: str = option(
        "lrfr",
        choices=("lrfr", "authors"),
        help="an anchor without a positive adds 0 (lrfr), or has one at distance 0 (authors)",
    )
    metric: str = option("cosine", choices=tuple(DISTANCES), help="distance: 1 - cosine, euclidean, or its square")

    def __call__(self, features: torch.Tensor, labels: torch.Tensor, copies: Sequence[int]) -> torch.Tensor:
        views = tuple(copies) if self.form == "authors" else sum(copies)
        return octuplet(features, labels, views, self.margin, form=self.form, metric=self.metric)


class Center(LossTerm):
    """Squared distance to the center of the class (2016)."""

    name = slot = "center"
    weight: float = option(0.003, help="weight lambda of the term in the sum")
    alpha: float = option(0.5, max=1, help="fraction of the way that a center moves to its features in a step")
    form: str = option(
        "paper", choices=("paper", "reference"), help="distances before the centers move (paper), or after (reference)"
    )

    def build(self, *, features: int, classes: int, group: Group | None = None) -> CenterLoss:
        """A center loss with initial centers."""
        return CenterLoss(
            features=features, classes=classes, weight=self.weight, alpha=self.alpha, form=self.form, group=group
        )


class Distill(LossTerm):
    """Distance to the embeddings of --teacher at full size; each form at most once.

    The forms ``cosine`` and ``mse`` compare each embedding with its target, and ``mse`` is twice ``cosine``. ``relational``
    compares the similarities among all images of the batch. ``attention`` compares feature maps, see ``Learner``.
    """

    name = slot = "distill"
    weight: float = option(1.0, help="weight of the term in the sum")
    form: str = option(
        "cosine",
        choices=("cosine", "mse", "relational", "attention"),
        help="1 - cosine; squared distance at length 1, which is twice that (mse); squared difference of the cosines among"
        " the images of a batch (relational); or 1 - cosine of the attention maps (attention)",
    )

    @property
    def label(self) -> str:
        """Name in the log, of which ``cosine`` has the short one."""
        return self.name if self.form == "cosine" else f"{self.name}-{self.form}"

    def __call__(self, features: torch.Tensor, targets: torch.Tensor, views: int) -> torch.Tensor:
        """(V*b, D) embeddings and targets, view after view -> (V,) mean loss of each view, or () of all together."""
        if self.form == "relational":
            return relational(features, targets)
        assert self.form != "attention"
        distances = cosine_distances if self.form == "cosine" else squared_distances
        return view_means(distances(features, targets), views)


TERMS: Registry[LossTerm] = Registry(CrossEntropy, Focal, HardestTriplet, Octuplet, Center, Distill)
_EXPECTED = (
    "one criterion (cross-entropy or focal), and at most one metric loss (hardest-triplet or octuplet) and one center;"
    " each form of distill at most once, and with one other than attention no criterion is needed"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Losses:
    """The terms of a loss.

    Attributes:
        criterion: None if a teacher is the only supervision.
    """

    criterion: Criterion | None = None
    metric: MetricLoss | None = None
    center: Center | None = None
    distill: tuple[Distill, ...] = ()

    @property
    def embedding_terms(self) -> tuple[Distill, ...]:
        """Those that compare embeddings with a teacher's."""
        return tuple(term for term in self.distill if term.form != "attention")

    @property
    def attention(self) -> Distill | None:
        """The one that compares feature maps with a teacher's."""
        return next((term for term in self.distill if term.form == "attention"), None)

    def __str__(self) -> str:
        """The text that ``parse_losses`` reads."""
        return "+".join(str(term) for term in (self.criterion, self.metric, self.center, *self.distill) if term)


def parse_losses(text: str) -> Losses:
    """Reads terms joined by ``+``.

    Raises:
        OptionError: an unknown term or option, neither criterion nor teacher, or two terms for one slot.
    """
    terms: dict[str, Any] = {}  # by slot
    distill: dict[str, Distill] = {}  # by form
    for part in text.split("+"):
        names = [name.strip() for name in part.partition(":")[0].split(",")]
        if len(names) > 1 and all(name in TERMS for name in names):
            raise OptionError(f"losses {text!r}: join terms with +, as in {'+'.join(names)}")
        term = TERMS.parse(part)
        twin = distill.get(term.form) if isinstance(term, Distill) else terms.get(term.slot)
        if twin:
            raise OptionError(f"losses {text!r}: {twin.name} and {term.name}; expected {_EXPECTED}")
        if isinstance(term, Distill):
            distill[term.form] = term
        else:
            terms[term.slot] = term
    if "criterion" not in terms and not distill.keys() - {"attention"}:
        raise OptionError(f"losses {text!r}: no criterion; expected {_EXPECTED}")
    return Losses(**terms, distill=tuple(distill.values()))
