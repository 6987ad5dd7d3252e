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
from benchmarks.datasets.lfw import RESOLUTIONS
from benchmarks.engine.runner import Embed, Engine, run
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import PairProtocol
from benchmarks.scoring.results import Result
from benchmarks.speed.faces import CROP_SIZE, Setup
from benchmarks.speed.pair_by_pair import ImagePair, score_pairs, worker_count
from benchmarks.speed.timing import Contender, Timing, compare_times
from model.backbones import build_backbone
from model.embedder import Embedder
from pipeline.prepare import Request
from pipeline.sources.images import ImageError, decode

FIVE = (CROP_SIZE, *RESOLUTIONS)  # px
_UNDEGRADED = f"{{}}@{CROP_SIZE}"
_FOLDS = 2  # of the excerpt
_EACH, _QUICK_EACH = (8, 4), (3, 1)  # pairs of a kind per fold; for the baseline with four passes per pair


def time_eval(setup: Setup, *, backbone: str | None = None) -> Iterator[Timing]:
    """Times LFW from files to accuracies on a CPU, with an untrained network, on an excerpt of the pair list.

    One unit is a pair scored at one resolution. LR to LR, which ``bench lfw`` scores too, is not compared.
    """
    name = backbone or ("spherenet4" if setup.quick else "spherenet20")
    torch.manual_seed(0)
    network = build_backbone(name).eval()
    ours = copy.deepcopy(network)  # an Embedder changes the memory layout of the weights
    whole = read_benchmark("lfw", setup.data_sets())
    timed, few = (excerpt(whole, each) for each in (_QUICK_EACH if setup.quick else _EACH))
    contenders = []
    for title, protocol, both in (
        ("pair by pair", timed, False),
        ("pair by pair, four passes as the reference", few, True),
    ):
        plain = functools.partial(score_pairs, network, image_pairs(protocol), FIVE, both=both)
        contenders.append(Contender(title, "baseline", plain, len(FIVE) * len(protocol.genuine)))
    five, settings, pairs = hr_to_lr(timed), len(timed.members), len(timed.genuine)
    for title, embed in (("fp32", Embedder(ours)), ("bf16", Embedder(ours, precision="bf16"))):
        contenders.append(Contender(title, "ours", functools.partial(score, five, embed), len(FIVE) * pairs))
        every = functools.partial(score, timed, embed)
        contenders.append(Contender(f"{title}, LR to LR too", "ours", every, settings * pairs, f"{settings} settings"))
    facts = {
        "network": name,
        "threads": str(torch.get_num_threads()),
        "workers of pair by pair": str(worker_count(len(FIVE) * pairs)),
        "timed": _count_passes(timed),
        "whole list": _count_passes(whole),
    }
    title = f"LFW at {', '.join(map(str, FIVE))} px, from files to accuracies"
    yield compare_times("eval", title, contenders, unit="pairs", rounds=setup.rounds, facts=facts)


def score(protocol: PairProtocol, embed: Embed) -> Result:
    """Scores with the engine of ``bench``."""
    return run(protocol, Engine(embed=embed), checkpoint={}, intervals=False)


def image_pairs(protocol: PairProtocol) -> list[ImagePair]:
    """The undegraded images of each pair."""
    return [(protocol.requests[first], protocol.requests[second]) for first, second in protocol.members[_UNDEGRADED]]


def hr_to_lr(protocol: PairProtocol) -> PairProtocol:
    """The five settings of the baseline: the first image as it is, the second one degraded."""
    return _select(protocol, [f"{{}}@{size}" for size in FIVE], slice(None))


def _select(protocol: PairProtocol, settings: Sequence[str], rows: list[int] | slice) -> PairProtocol:
    """Some settings and pairs of a protocol, and the images that these need."""
    members = np.stack([protocol.members[setting][rows] for setting in settings])
    used, indices = np.unique(members, return_inverse=True)
    return dataclasses.replace(
        protocol,
        requests=[protocol.requests[row] for row in used],
        members=dict(zip(settings, indices.reshape(members.shape), strict=True)),
        identities=protocol.identities[rows],
        genuine=protocol.genuine[rows],
        folds=protocol.folds[rows],
    )


def excerpt(whole: PairProtocol, each: int) -> PairProtocol:
    """LFW with ``each`` genuine and ``each`` impostor pairs in two folds, fewer if not so many have usable images.

    The pairs are chosen one by one to repeat images as often as the whole list does.

    Raises:
        ProtocolError: there are no such pairs.
    """
    members, pairs = whole.members[_UNDEGRADED], image_pairs(whole)
    usable = functools.cache(lambda row: all(map(_is_usable, pairs[row])))
    share = _passes(members) / len(members)
    genuine: list[int] = []
    impostors: list[int] = []
    for chosen, kind in ((genuine, True), (impostors, False)) * (_FOLDS * each):
        taken = [*genuine, *impostors]
        candidates = [row for row in np.flatnonzero(whole.genuine == kind).tolist() if row not in taken]
        excess = [abs(_passes(members[[*taken, row]]) - share * (len(taken) + 1)) for row in candidates]
        nearest = (candidates[place] for place in np.argsort(excess, kind="stable"))
        chosen += itertools.islice(filter(usable, nearest), 1)
    each = min(len(genuine), len(impostors)) // _FOLDS
    if not each:
        raise ProtocolError(
            f"{whole.root}: expected {_FOLDS} pairs of each kind whose images can be read and have landmarks;"
            " --root names the folder with LFW in it; without --root faces are generated"
        )
    starts = range(0, _FOLDS * each, each)
    rows = [row for start in starts for kind in (genuine, impostors) for row in kind[start : start + each]]
    return dataclasses.replace(_select(whole, list(whole.members), rows), folds=np.repeat(np.arange(_FOLDS), 2 * each))


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
