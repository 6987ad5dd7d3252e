"""Lists of pairs: written, read and scored."""

from __future__ import annotations

from benchmarks.datasets.pair_set import read_pair_set
from benchmarks.engine.runner import Engine, run
from pipeline.spec import Preprocessing
from tests.benchmarks.runs import FACTS, Recorder


def score_pairs(protocol, embed=None, spec=None, **options):
    return run(protocol, Engine(embed=embed or Recorder(), spec=spec or Preprocessing()), checkpoint=FACTS, **options)


def read_list(path, lfw, **options):
    return read_pair_set(path, root=lfw / "lfw", landmarks=[lfw / "LFW.csv"], **options)


def written(path, rows, form="{0},{1},{2}\n", header=""):
    path.write_text(header + "".join(form.format(*row) for row in rows))
    return path
