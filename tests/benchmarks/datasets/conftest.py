"""The pairs of LFW as lists of a user's own pairs."""

from __future__ import annotations

import pytest

from benchmarks.datasets.lfw import read_lfw
from benchmarks.datasets.pair_set import read_pair_set
from benchmarks.engine.runner import Engine, run
from pipeline.spec import Preprocessing
from tests.benchmarks.conftest import FACTS, Recorder


def score_pairs(protocol, embed=None, spec=None, **options):
    return run(protocol, Engine(embed=embed or Recorder(), spec=spec or Preprocessing()), checkpoint=FACTS, **options)


@pytest.fixture(scope="module")
def lfw(_demo):
    return _demo / "LFW"


@pytest.fixture(scope="module")
def rows(lfw):
    """(first, second, genuine, fold) of LFW's pairs; paths below lfw/."""
    found = read_lfw(lfw)
    names = [str(request.path.relative_to(lfw / "lfw")) for request in found.requests]
    pairs = found.members["{}@128"].tolist()
    return [
        (names[first], names[second], int(same), int(fold))
        for (first, second), same, fold in zip(pairs, found.genuine, found.folds, strict=True)
    ]


def read_list(path, lfw, **options):
    return read_pair_set(path, root=lfw / "lfw", landmarks=[lfw / "LFW.csv"], **options)


def written(path, rows, form="{0},{1},{2}\n", header=""):
    path.write_text(header + "".join(form.format(*row) for row in rows))
    return path
