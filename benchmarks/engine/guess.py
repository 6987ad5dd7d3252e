"""What preprocessing a network probably expects: others are tried on a few pairs of faces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from benchmarks.engine.runner import Embed
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import PairProtocol
from benchmarks.scoring.vectors import unit_length
from pipeline.images.decode import MAX_PIXELS, ImageError
from pipeline.named_specs import NAMED_SPECS
from pipeline.prepare import Request, prepare
from pipeline.progress import Progress
from pipeline.spec import Number, Preprocessing

PAIRS = 40  # of each kind
MIN_PAIRS = 8
SURE = 0.975  # of the bootstrap resamples in which another preprocessing is better
MIN_SEPARATION = 1.0  # below it the network tells faces apart with none
MIN_SPREAD = 1e-3  # of scores; with less, all embeddings are alike
_RESAMPLES = 1000
_TEMPLATES = ("arcface", "seed", "facenet", "dlib")
_ALIGNMENT = ("template", "points", "warp", "fit", "margin", "stretch")
RANGES: dict[str, tuple[Number, Number]] = {
    "-1 to 1": (0.5, 0.5),
    "0 to 1": (0.0, 1.0),
    "0 to 255": (0.0, 1 / 255),
    "-127.5 to 127.5": (0.5, 1 / 255),
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A preprocessing that was tried.

    Attributes:
        what: in words, such as ``colour order BGR``.
        separation: mean score of genuine minus impostor pairs, in their standard deviations.
        better: share of bootstrap resamples of the pairs in which it separates more than the best one before it.
    """

    what: str
    spec: Preprocessing
    separation: float
    better: float


@dataclasses.dataclass(kw_only=True)
class Guess:
    """What was found.

    Attributes:
        given: the preprocessing that was asked about.
        trials: of others.
        best: the last one that was surely better than the best before it; the given one if none was.
        pairs: number of pairs.
        grey: all images are grey: the colour order makes no difference.
        own: what makes no difference, because the network normalises it itself: ``colour order``, ``range``.
    """

    given: Trial
    trials: list[Trial]
    best: Trial
    pairs: int
    grey: bool
    own: list[str]

    @property
    def blind(self) -> bool:
        """Whether the network tells the faces apart with no preprocessing."""
        return self.best.separation < MIN_SEPARATION


def guess_preprocessing(
    protocol: PairProtocol,
    spec: Preprocessing,
    embed_with: Callable[[Preprocessing], Embed],
) -> Guess:
    """Tries colour orders and ranges, then other templates with the best of them.

    Args:
        spec: the preprocessing to compare with.
        embed_with: spec -> function from (N, S, S, 3) uint8 images to (N, D) vectors, of the same network.

    Raises:
        ProtocolError: too few images are usable.
    """
    faces = _Faces(protocol)
    with Progress("preprocessing", 2 * len(RANGES) + len(_TEMPLATES) - 2, "trials") as progress:
        trials = _Trials(faces, spec, embed_with, progress)
        other = dataclasses.replace(spec, color="BGR" if spec.color == "RGB" else "RGB")
        orders = [spec]
        if not faces.grey and trials.add(f"colour order {other.color}", other, "colour order"):
            orders.append(other)
        for one in orders:
            trials.add_ranges(one)
        for name in _TEMPLATES if spec.aligned else ():
            best = trials.guess.best.spec
            if name != best.template:
                trials.add(f"template {name}", _in_template(best, name))
        progress.total = progress.n
    return trials.guess


class _Trials:
    """Trials on some faces.

    Attributes:
        guess: what was found so far.
    """

    def __init__(
        self, faces: _Faces, spec: Preprocessing, embed_with: Callable[[Preprocessing], Embed], progress: Progress
    ) -> None:
        self._faces, self._embed_with, self._progress = faces, embed_with, progress
        self._base = faces.scores(spec, embed_with(spec))
        self._resampled = faces.resampled(self._base)
        given = Trial(what="as given", spec=spec, separation=faces.separation(self._base), better=0.0)
        self.guess = Guess(given=given, trials=[], best=given, pairs=len(faces.genuine), grey=faces.grey, own=[])

    def add(self, what: str, spec: Preprocessing, kind: str = "") -> bool:
        """Tries a preprocessing. Returns False if it makes no difference: the network normalises its ``kind`` itself."""
        scores = self._faces.scores(spec, self._embed_with(spec))
        self._progress.update()
        if kind and self._base.std() > MIN_SPREAD and np.allclose(scores, self._base, atol=1e-6):
            self.guess.own.append(kind)
            return False
        resampled = self._faces.resampled(scores)
        better = float(np.mean(resampled > self._resampled))
        trial = Trial(what=what, spec=spec, separation=self._faces.separation(scores), better=better)
        self.guess.trials.append(trial)
        if better >= SURE:
            self.guess.best, self._resampled = trial, resampled
        return True

    def add_ranges(self, spec: Preprocessing) -> None:
        """Tries all other ranges of the colour order of ``spec``, but ends if the first makes no difference."""
        same = spec.color == self.guess.given.spec.color
        for name, (mean, std) in RANGES.items():
            what = f"range {name}" + ("" if same else f", colour order {spec.color}")
            other = dataclasses.replace(spec, mean=mean, std=std)
            if other != spec and "range" not in self.guess.own:
                self.add(what, other, "range" if same else "")


def _in_template(spec: Preprocessing, name: str) -> Preprocessing:
    """The spec with the alignment of a preset."""
    preset = NAMED_SPECS[name].resized(spec.size)
    return dataclasses.replace(spec, **{field: getattr(preset, field) for field in _ALIGNMENT})


class _Faces:
    """A few pairs of a protocol, undegraded.

    Attributes:
        genuine: (P,) bool.
        grey: whether all images are grey.
    """

    def __init__(self, protocol: PairProtocol) -> None:
        random = np.random.default_rng(0)
        members = next(iter(protocol.members.values()))
        chosen: list[int] = []
        for kind in (protocol.genuine, ~protocol.genuine):
            rows = random.permutation(np.flatnonzero(kind))
            usable = (row for row in rows if all(self._is_usable(protocol.requests[one]) for one in members[row]))
            found = [row for _, row in zip(range(PAIRS), usable, strict=False)]
            if len(found) < MIN_PAIRS:
                raise ProtocolError(f"bench {protocol.name}: {len(found)} usable pairs of a kind, expected {MIN_PAIRS}")
            chosen += found
        self.genuine = protocol.genuine[chosen]
        images, pairs = np.unique(members[chosen], return_inverse=True)
        self._pairs = pairs.reshape(len(chosen), 2)
        self._requests = [dataclasses.replace(protocol.requests[row], down=None) for row in images]
        self._crops: dict[Preprocessing, np.ndarray] = {}
        self.grey = all((crop == crop[..., :1]).all() for crop in self._prepared(Preprocessing.unaligned(size=64)))
        self._resamples = [
            np.concatenate([random.choice(np.flatnonzero(kind), kind.sum()) for kind in (self.genuine, ~self.genuine)])
            for _ in range(_RESAMPLES)
        ]

    def _is_usable(self, request: Request) -> bool:
        try:
            prepare(request.read(MAX_PIXELS), [request], Preprocessing(size=16), MAX_PIXELS)
        except (OSError, ImageError):
            return False
        return True

    def _prepared(self, spec: Preprocessing) -> np.ndarray:
        """(N, S, S, 3) crops; they depend on the geometry of the spec alone."""
        geometry = dataclasses.replace(spec, color="RGB", mean=0.5, std=0.5)
        if geometry not in self._crops:
            whole = {} if spec.aligned else {"points": None, "template": None, "side": None}
            requests = [dataclasses.replace(one, **whole) for one in self._requests]
            self._crops[geometry] = np.stack(
                [prepare(one.read(MAX_PIXELS), [one], geometry, MAX_PIXELS)[0] for one in requests]
            )
        return self._crops[geometry]

    def scores(self, spec: Preprocessing, embed: Embed) -> np.ndarray:
        """(P,) cosines; those of embeddings that are not finite are 0."""
        vectors = np.nan_to_num(embed(self._prepared(spec)), posinf=0, neginf=0)
        first, second = unit_length(vectors)[self._pairs].transpose(1, 0, 2)
        cosines: np.ndarray = np.einsum("nd,nd->n", first, second)
        return cosines

    def separation(self, scores: np.ndarray) -> float:
        """See ``Trial``."""
        return float(_separations(scores[None], self.genuine[None])[0])

    def resampled(self, scores: np.ndarray) -> np.ndarray:
        """(R,) separations of bootstrap resamples of the pairs, the same ones for every preprocessing."""
        rows = np.stack(self._resamples)
        return _separations(scores[rows], self.genuine[rows])


def _separations(scores: np.ndarray, genuine: np.ndarray) -> np.ndarray:
    """(R,) from (R, P); all rows have as many genuine ones, first."""
    count = int(genuine[0].sum())
    same, other = scores[:, genuine[0]].reshape(-1, count), scores[:, ~genuine[0]]
    deviation = np.sqrt((same.var(1) + other.var(1)) / 2)
    found: np.ndarray = (same.mean(1) - other.mean(1)) / np.maximum(deviation, 1e-6)
    return found
