"""What a score on LFW costs: the benchmark's engine, which embeds each (image, resolution) once, against pair after pair."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from benchmarks import read_benchmark
from benchmarks.datasets.lfw import RESOLUTIONS
from benchmarks.engine.runner import Embed, Engine, run
from benchmarks.scoring.protocols import PairProtocol
from benchmarks.scoring.results import Result
from benchmarks.speed.excerpt import hr_to_lr, image_pairs, write_excerpt
from benchmarks.speed.faces import data_root
from benchmarks.speed.pair_by_pair import SIDE, PairScores, score_pairs, workers
from benchmarks.speed.timing import Contender, Timing, compare_times, silence

FIVE = (SIDE, *RESOLUTIONS)  # px
_EACH, _EACH_QUICK = (8, 4), (3, 1)  # pairs of a kind in a fold of the excerpt; of that for four passes a pair


def time_scoring(
    *,
    root: Path | None,
    folder: Path,
    rounds: int,
    quick: bool,
    name: str,
    network: nn.Module,
    embedders: Mapping[str, Embed],
) -> Iterator[Timing]:
    """Times LFW from files to accuracies, on an excerpt of the list that repeats images as often.

    A pair scored at one resolution is the unit. The baseline scores five settings, HR to LR, and so do we;
    ``bench lfw`` scores nine, so that its rows are compared with nothing.

    Args:
        root: holds LFW; None: faces are generated.  folder: scratch.
        name: of the network.
        network: what the baseline calls: (N, 3, 128, 128) float32 -> (N, D).
        embedders: the same network, (N, 128, 128, 3) uint8 RGB -> (N, D), by its precision.

    Raises:
        ProtocolError: LFW is not as it should be.
    """
    whole = read_benchmark("lfw", data_root(root, folder, quick=quick))
    excerpt, few = (
        write_excerpt(whole, folder / place, each)
        for place, each in zip(("excerpt", "few"), _EACH_QUICK if quick else _EACH, strict=True)
    )
    timed = read_benchmark("lfw", excerpt)
    five = len(FIVE) * len(timed.genuine)
    yield compare_times(
        "eval",
        f"LFW at {', '.join(map(str, FIVE))} px, from files to accuracies",
        [*_plain(excerpt, few, network), *_ours(excerpt, embedders)],
        unit="pairs",
        rounds=rounds,
        facts={
            "network": name,
            "threads": str(torch.get_num_threads()),
            "workers of pair by pair": str(workers(five)),
            "timed": _passes(timed),
            "whole list": _passes(whole),
        },
    )


def _plain(excerpt: Path, few: Path, network: nn.Module) -> Iterator[Contender]:
    """The baselines; the one of four passes on fewer pairs, as its rate does not depend on their number."""
    for name, root, both in (
        ("pair by pair", excerpt, False),
        ("pair by pair, four passes as the reference", few, True),
    ):
        amount = len(FIVE) * len(read_benchmark("lfw", root).genuine)
        run = _quiet(functools.partial(score_plainly, root, network, both=both))
        yield Contender(name=name, role="baseline", run=run, amount=amount)


def _ours(excerpt: Path, embedders: Mapping[str, Embed]) -> Iterator[Contender]:
    """The engine at each precision: the baselines' settings, and all of them."""
    timed = read_benchmark("lfw", excerpt)
    five, every = (settings * len(timed.genuine) for settings in (len(FIVE), len(timed.members)))
    for precision, embed in embedders.items():
        run = _quiet(functools.partial(score_five, excerpt, embed))
        yield Contender(name=precision, role="ours", run=run, amount=five)
        run, name = _quiet(functools.partial(score_all, excerpt, embed)), f"{precision}, LR to LR too"
        yield Contender(name=name, role="ours", run=run, amount=every, gives=f"{len(timed.members)} settings")


def score_plainly(root: Path, network: nn.Module, *, both: bool = False) -> dict[int, PairScores]:
    """The baseline, by resolution, px; ``both`` as ``score_pairs`` has it."""
    protocol = read_benchmark("lfw", root)
    return score_pairs(network, image_pairs(protocol), protocol.genuine, protocol.folds, FIVE, both=both)


def score_five(root: Path, embed: Embed) -> Result:
    """What the baseline computes."""
    return run(hr_to_lr(read_benchmark("lfw", root)), Engine(embed=embed), checkpoint={}, intervals=False)


def score_all(root: Path, embed: Embed) -> Result:
    """What ``bench lfw`` and an evaluation in training compute: both images degraded too."""
    return run(read_benchmark("lfw", root), Engine(embed=embed), checkpoint={}, intervals=False)


def _quiet(score: Callable[[], object]) -> Callable[[], object]:
    def call() -> None:
        with silence():
            score()

    return call


def _passes(protocol: PairProtocol) -> str:
    count, once = len(protocol.genuine), len(hr_to_lr(protocol).requests)
    images = len({request.path for request in protocol.requests})
    plain = 2 * len(FIVE) * count
    return (
        f"{count:,} pairs of {images:,} images; {plain:,} passes pair by pair ({2 * plain:,} as the reference),"
        f" {once:,} distinct ({plain / once:.2f} x), {len(protocol.requests):,} with LR to LR"
    )
