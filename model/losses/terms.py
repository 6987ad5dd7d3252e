"""The terms of a loss by name, and how a user adds them up: ``cross-entropy+hardest-triplet:margin=1``."""

from __future__ import annotations

import dataclasses
from typing import Literal

from model.choice import Choice, parse_choice
from model.losses.center import CENTER_OPTIONS
from model.options import Option, OptionError, checked

Kind = Literal["criterion", "metric", "center"]
_WEIGHT = Option(default=1.0, about="factor in the sum")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
    """What a loss can be made of.

    Attributes:
        kind: a criterion takes the head's scores; a metric the embeddings of several images of an identity; center the
            embeddings and labels.
        about: one line.  options: what it can be told.
    """

    kind: Kind
    about: str
    options: dict[str, Option] = dataclasses.field(default_factory=dict)


TERMS: dict[str, Term] = {
    "cross-entropy": Term(kind="criterion", about="of the head's logits, the mean over views"),
    "focal": Term(
        kind="criterion",
        about="focal loss (2017): cross-entropy that well-judged images count less in",
        options={"gamma": Option(default=2.0, about="how much less; 0 is the cross-entropy")},
    ),
    "hardest-triplet": Term(
        kind="metric",
        about="over all images, at whatever resolution (Lai & Lam, 2021)",
        options={"weight": _WEIGHT, "margin": Option(default=1.0, about="in units of 1 - cosine")},
    ),
    "octuplet": Term(
        kind="metric",
        about="triplets HR-HR, HR-LR, LR-HR, LR-LR (Octuplet loss, 2023); the first view is HR",
        options={"weight": _WEIGHT, "margin": Option(default=0.5, about="in units of 1 - cosine")},
    ),
    "center": Term(kind="center", about="distance to the class's centre (2016)", options=CENTER_OPTIONS),
}


def parse_losses(text: str) -> tuple[Choice, ...]:
    """Reads terms parted by ``+``; all options are filled in.

    Raises:
        OptionError, ChoiceError: an unknown term or option, a term given twice, or other than one criterion.
    """
    terms = tuple(_resolved(parse_choice(part)) for part in text.split("+"))
    names = [term.name for term in terms]
    criteria = [name for name in names if TERMS[name].kind == "criterion"]
    if len(criteria) != 1 or len(set(names)) < len(names):
        raise OptionError(f"losses {text!r}: expected each term once, and cross-entropy or focal among them")
    return terms


def _resolved(term: Choice) -> Choice:
    if term.name not in TERMS:
        raise OptionError(f"loss {term.name!r} is unknown; choose from {', '.join(TERMS)}, added up with +")
    return Choice(term.name, checked(f"loss {term.name}", TERMS[term.name].options, term.options))
