"""Classification heads by name: features and labels to logits.

A ``Head`` is a classifier with a margin. It can be sharded over ranks and can sample classes. Its logits,
``ClassScores``, are the input of the criteria in ``model.losses.functional``.
"""

from __future__ import annotations

from model.heads.adaptive import AdaCos, AdaFace, ASoftmax
from model.heads.classifier import Head, HeadOptions
from model.heads.margins import AMSoftmax, ArcFace, Softmax, SVSoftmax
from model.heads.rows import INITIAL_ROWS, check_group
from model.heads.scores import ClassScores
from model.options import Registry
from model.sharding import Group
from shards.arguments import check_argument, check_whole

__all__ = ["HEADS", "ClassScores", "Head", "HeadOptions", "build_head"]

HEADS: Registry[HeadOptions] = Registry(Softmax, ASoftmax, AMSoftmax, ArcFace, AdaFace, AdaCos, SVSoftmax)


def build_head(
    name: str, *, features: int, classes: int, rows: str = "reference", group: Group | None = None, **options: object
) -> Head:
    """Builds a head by name; see ``HeadOptions.build``.

    Args:
        name: a key of ``HEADS``.
        features: dimension of an embedding.
        classes: number of classes of all ranks.
        rows: initial class weights of a cosine head, as ``--class-rows``.
        group: ranks that share the classes; None for a single process.
        options: of that head; missing options take their defaults.

    Raises:
        OptionError: unknown name or option, invalid value, or too few classes.
        TypeError, ValueError: ``features``, ``classes`` or ``rows`` has a wrong type or value.
    """
    check_group(group)
    check_argument(rows in INITIAL_ROWS, "rows", rows, f"one of {', '.join(INITIAL_ROWS)}")
    features, classes = check_whole("features", features, 1), check_whole("classes", classes)
    return HEADS.build(name, options).build(features=features, classes=classes, rows=rows, group=group)
