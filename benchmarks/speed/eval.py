"""Stage ``eval``: LFW at five resolutions, by the benchmark engine and pair by pair."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from benchmarks import read_benchmark
from benchmarks.datasets.resolutions import RESOLUTIONS
from benchmarks.engine.runner import Engine, run
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import PairProtocol
from benchmarks.speed.baselines import score_pairs, worker_count
from benchmarks.speed.faces import CROP_SIZE, Setup
from benchmarks.speed.timing import Contender, Timing, compare_times
from model.backbones import build_backbone
from model.embedder import Embedder
from pipeline.images.decode import ImageError, decode
from pipeline.prepare import Request

FIVE = (CROP_SIZE, *RESOLUTIONS)  # px
FIVE_SETTINGS = [f"{{}}@{size}" for size in FIVE]  # the first image as it is, the second one degraded
_UNDEGRADED = FIVE_SETTINGS[0]
_FOLDS = 2  # of the excerpt
_EACH, _QUICK_EACH = (8, 4), (3, 1)  # pairs of a kind per fold; for the baseline with four passes per pair


def time_eval(setup: Setup, *, backbone: str = "") -> Iterator[Timing]:
    """Times LFW from files to accuracies on a CPU, with an untrained network, on an excerpt of the pair list.

    One unit is a pair scored at one resolution. LR to LR, which ``bench lfw`` scores too, is not compared.
    """
    backbone = backbone or ("spherenet4" if setup.quick else "spherenet20")
    torch.manual_seed(0)
    network = build_backbone(backbone).eval()
    ours = copy.deepcopy(network)  # an Embedder changes the memory layout of the weights
    whole = read_benchmark("lfw", setup.data_sets())
    assert isinstance(whole, PairProtocol)
    each, few = _QUICK_EACH if setup.quick else _EACH
    rows, settings = choose_pairs(whole, each), list(whole.members)
    five, timed = select(whole, rows, FIVE_SETTINGS), select(whole, rows, settings)
    fewer = select(whole, choose_pairs(whole, few), FIVE_SETTINGS)
    plain = functools.partial(score_pairs, network, resolutions=FIVE)
    twice = functools.partial(plain, fewer, both=True)
    amount, gives = len(FIVE) * len(rows), f"{len(settings)} settings"
    contenders = [
        Contender("pair by pair", "baseline", functools.partial(plain, five), amount),
        Contender("pair by pair, four passes as the reference", "baseline", twice, len(FIVE) * len(fewer.genuine)),
    ]
    bench = functools.partial(run, checkpoint={}, intervals=False)
    for name, embed in (("fp32", Embedder(ours)), ("bf16", Embedder(ours, precision="bf16"))):
        engine = Engine(embed=embed)
        contenders.append(Contender(name, "ours", functools.partial(bench, five, engine), amount))
        every = functools.partial(bench, timed, engine)
        contenders.append(Contender(f"{name}, LR to LR too", "ours", every, len(settings) * len(rows), gives))
    facts = {
        "network": backbone,
        "threads": str(torch.get_num_threads()),
        "workers of pair by pair": str(worker_count(amount)),
        "timed": _count_passes(timed),
        "whole list": _count_passes(whole),
    }
    title = f"LFW at {', '.join(map(str, FIVE))} px, from files to accuracies"
    yield compare_times("eval", title, contenders, unit="pairs", rounds=setup.rounds, facts=facts)


def select(protocol: PairProtocol, rows: list[int], settings: Sequence[str]) -> PairProtocol:
    """A protocol with some of the pairs and settings, and only the images that they need."""
    members = np.stack([protocol.members[setting][rows] for setting in settings])
    used, indices = np.unique(members, return_inverse=True)
    return dataclasses.replace(
        protocol,
        requests=[protocol.requests[row] for row in used],
        members=dict(zip(settings, indices.reshape(members.shape), strict=True)),
        identities=protocol.identities[rows],
        genuine=protocol.genuine[rows],
        folds=np.arange(len(rows)) * _FOLDS // len(rows),
    )


def choose_pairs(whole: PairProtocol, each: int) -> list[int]:
    """Rows of ``each`` genuine and ``each`` impostor pairs per fold, in two folds; fewer if too few are usable.

    They are chosen so that images repeat as often as in the whole list. Raises: ProtocolError: too few are usable.
    """
    members = whole.members[_UNDEGRADED]
    usable = functools.cache(lambda row: all(_is_usable(whole.requests[image]) for image in members[row]))
    share = _passes(members) / len(members)
    chosen: dict[bool, list[int]] = {True: [], False: []}  # genuine pairs, impostors
    for genuine in (True, False) * (_FOLDS * each):
        taken = chosen[True] + chosen[False]
        candidates = [row for row in np.flatnonzero(whole.genuine == genuine).tolist() if row not in taken]
        excess = [abs(_passes(members[[*taken, row]]) - share * (len(taken) + 1)) for row in candidates]
        nearest = (candidates[place] for place in np.argsort(excess, kind="stable"))
        chosen[genuine] += itertools.islice(filter(usable, nearest), 1)
    each = min(map(len, chosen.values())) // _FOLDS
    if not each:
        raise ProtocolError(
            f"{whole.root}: expected {_FOLDS} pairs of each kind whose images can be read and have landmarks;"
            " --root names the folder with LFW in it; without --root faces are generated"
        )
    starts = range(0, _FOLDS * each, each)
    return [row for start in starts for rows in chosen.values() for row in rows[start : start + each]]


def _passes(members: np.ndarray) -> int:
    """Distinct forward passes of (P, 2) images: each image as it is, each second one at every low resolution."""
    return len(set(members.ravel().tolist())) + len(RESOLUTIONS) * len(set(members[:, 1].tolist()))


def _is_usable(request: Request) -> bool:
    try:
        return len(request.points or ()) == 5 and decode(request.path) is not None
    except ImageError:
        return False


def _count_passes(protocol: PairProtocol) -> str:
    count, once = len(protocol.genuine), _passes(protocol.members[_UNDEGRADED])
    images, plain = len({request.path for request in protocol.requests}), 2 * len(FIVE) * count
    return (
        f"{count:,} pairs of {images:,} images; {plain:,} passes pair by pair ({2 * plain:,} as the reference),"
        f" {once:,} distinct ({plain / once:.2f} x), {len(protocol.requests):,} with LR to LR"
    )
