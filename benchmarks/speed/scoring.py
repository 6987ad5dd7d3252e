"""What a score on LFW costs: the benchmark's engine, which embeds each (image, resolution) once, against pair after pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import read_benchmark
from benchmarks.lfw import RESOLUTIONS
from benchmarks.protocols import PairProtocol
from benchmarks.result import Result
from benchmarks.runner import Embed, Engine, run
from benchmarks.speed.excerpt import hr_to_lr, image_pairs, write_excerpt
from benchmarks.speed.faces import data_root
from benchmarks.speed.pair_by_pair import SIDE, PairScores, score_pairs
from benchmarks.speed.timing import Contender, Timing, compare_times, silence

FIVE = (SIDE, *RESOLUTIONS)  # px
_EACH, _EACH_QUICK = 8, 3  # pairs of a kind in a fold of the excerpt


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

    A pair scored at one resolution is the unit. ``bench lfw`` scores nine settings, five of them HR to LR; the
    baseline scores the five.

    Args:
        root: holds LFW; None: faces are generated.  folder: scratch.
        name: of the network.
        network: what the baseline calls: (N, 3, 128, 128) float32 -> (N, D).
        embedders: the same network, (N, 128, 128, 3) uint8 RGB -> (N, D), by its precision.

    Raises:
        ProtocolError: LFW is not as it should be.
    """
    whole = read_benchmark("lfw", data_root(root, folder, quick=quick))
    excerpt = write_excerpt(whole, folder / "excerpt", _EACH_QUICK if quick else _EACH)
    timed = read_benchmark("lfw", excerpt)
    five, all_settings = len(FIVE) * len(timed.genuine), len(timed.members) * len(timed.genuine)
    contenders = [
        Contender(name="pair by pair", role="baseline", run=_quiet(score_plainly, excerpt, network), amount=five)
    ]
    for precision, embed in embedders.items():
        both = f"{precision}, LR to LR too"
        contenders += [
            Contender(name=precision, role="ours", run=_quiet(score_five, excerpt, embed), amount=five),
            Contender(name=both, role="ours", run=_quiet(score_all, excerpt, embed), amount=all_settings),
        ]
    yield compare_times(
        "eval",
        f"LFW at {', '.join(map(str, FIVE))} px, from files to accuracies",
        contenders,
        unit="pairs",
        rounds=rounds,
        facts={
            "network": name,
            "threads": str(torch.get_num_threads()),
            "timed": _passes(timed),
            "whole list": _passes(whole),
        },
    )


def score_plainly(root: Path, network: nn.Module) -> dict[int, PairScores]:
    """The baseline, by resolution, px."""
    protocol = read_benchmark("lfw", root)
    return score_pairs(network, image_pairs(protocol), protocol.genuine, protocol.folds, FIVE)


def score_five(root: Path, embed: Embed) -> Result:
    """What the baseline computes."""
    return run(hr_to_lr(read_benchmark("lfw", root)), Engine(embed=embed), checkpoint={}, intervals=False)


def score_all(root: Path, embed: Embed) -> Result:
    """What ``bench lfw`` and an evaluation in training compute: both images degraded too."""
    return run(read_benchmark("lfw", root), Engine(embed=embed), checkpoint={}, intervals=False)


def _quiet(score: Callable[..., Any], *arguments: Any) -> Callable[[], object]:
    def call() -> None:
        with silence():
            score(*arguments)

    return call


def _passes(protocol: PairProtocol) -> str:
    count, once = len(protocol.genuine), len(hr_to_lr(protocol).requests)
    images = len({request.path for request in protocol.requests})
    plain = 2 * len(FIVE) * count
    return (
        f"{count:,} pairs of {images:,} images; {plain:,} passes pair by pair, {once:,} distinct ({plain / once:.2f} x),"
        f" {len(protocol.requests):,} with LR to LR"
    )
