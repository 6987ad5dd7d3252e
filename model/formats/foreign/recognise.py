"""Finds the network of another project in a file's content, and says what was found where there is none."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from model.errors import CheckpointError
from model.formats.foreign import inception, residual, vit
from model.formats.foreign.contents import StateDict, Tensors, state_dicts
from model.formats.foreign.match import Match, MisfitError, translate
from model.formats.foreign.spherenet import read_spherenet, spherenet_prefixes
from shards.messages import counted

_MAX_PREFIXES = 16
_AVERAGED = {"ema", "averaged", "average", "shadow", "swa"}
KNOWN = "insightface, MagFace, AdaFace, CVLface, facenet-pytorch, face.evoLVe or the reference"
OTHERS = "for any other network name module:function"


class Family(NamedTuple):
    """Networks with the same names of tensors.

    Attributes:
        title: for messages.
        keys: names that each of them has; the first is found in no other family.
        read: from tensors and the prefix that was removed from their names. Raises: MisfitError.
    """

    title: str
    keys: tuple[str, ...]
    read: Callable[[Tensors, str], Match]

    def prefixes(self, tensors: Tensors) -> list[str]:
        """Prefixes under which all ``keys`` lie."""
        if not self.keys:
            return spherenet_prefixes(tensors)
        first = self.keys[0]
        found = [name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")]
        return [prefix for prefix in found if all(prefix + key in tensors for key in self.keys)]


FAMILIES = (
    Family("an iresnet of insightface", residual.IRESNET_KEYS, residual.read_iresnet),
    Family("an IR network of AdaFace, CVLface, face.evoLVe or the reference", residual.IR_KEYS, residual.read_ir),
    Family("a ResNet of the reference", residual.RESNET_KEYS, residual.read_resnet),
    Family("an InceptionResnetV1 of facenet-pytorch", inception.KEYS, inception.read_inception),
    Family("a ViT of insightface or CVLface", vit.KEYS, vit.read_vit),
    Family("a SphereNet of the reference", (), read_spherenet),
)


class Candidate(NamedTuple):
    """A place in the file where the names of a family were found."""

    family: Family
    found: StateDict
    prefix: str

    def place(self) -> str:
        """For messages, such as ``state_dict: model.*``; empty for a bare state dict."""
        parts = [*self.found.where, *([f"{self.prefix}*"] if self.prefix else [])]
        return _listed([": ".join(parts)]) if parts else ""

    def averaged(self) -> bool:
        """Whether the names say that these are averaged weights."""
        words = re.split(r"[._]", ".".join((*self.found.where, self.prefix)).lower())
        return not _AVERAGED.isdisjoint(words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignNetwork:
    """A network of another project.

    Attributes:
        match: its graph here and its preprocessing.
        state: the state dict of our backbone.
        stated: whether a file beside the network states its preprocessing.
        note: what was taken, and what was left out, for the user; empty if there is nothing to say.
    """

    match: Match
    state: dict[str, torch.Tensor]
    stated: bool
    note: str


def recognise(path: Path, content: object, *, color: str | None = None) -> ForeignNetwork:
    """Finds the network in ``content``.

    Args:
        path: for messages.
        content: of the file, as ``read_checkpoint`` returns it.
        color: order of the channels as CVLface's configuration states it; no other network takes it.

    Raises:
        CheckpointError: there is no known network, or there are several.
    """
    found = list(state_dicts(content))
    candidate = _one(path, [one for state in found for one in _candidates(path, state)], found)
    tensors = {
        name.removeprefix(candidate.prefix): tensor
        for name, tensor in candidate.found.tensors.items()
        if name.startswith(candidate.prefix)
    }
    try:
        match = candidate.family.read(tensors, candidate.prefix)
        if stated := color is not None and candidate.prefix.endswith("net."):
            match = match._replace(spec=dataclasses.replace(match.spec, color=color))
        state, classifiers = translate(match, tensors)
    except MisfitError as error:
        place = candidate.place()
        raise CheckpointError(
            f"{path}: {f'its {place} has' if place else 'has'} the names of {candidate.family.title},"
            f" but {_listed([str(error)], 300)}; {OTHERS}"
        ) from None
    note = _note(path, content, candidate, match, classifiers)
    return ForeignNetwork(match=match, state=state, stated=stated, note=note)


def _candidates(path: Path, found: StateDict) -> list[Candidate]:
    candidates = [Candidate(family, found, prefix) for family in FAMILIES for prefix in family.prefixes(found.tensors)]
    if len(candidates) > _MAX_PREFIXES:
        raise CheckpointError(f"{path}: holds {len(candidates):,} networks, expected one; save the one to use alone")
    return candidates


def _one(path: Path, candidates: list[Candidate], found: list[StateDict]) -> Candidate:
    """The only candidate, or the only one of averaged weights."""
    if not candidates:
        raise CheckpointError(f"{path}: {_nothing(found)}")
    averaged = [one for one in candidates if one.averaged()]
    if len(candidates) > 1 and len(averaged) != 1:
        places = _listed([one.place() or "the file itself" for one in candidates])
        raise CheckpointError(
            f"{path}: holds {len(candidates)} networks, in {places}; save the one to use alone:"
            " torch.save(network.state_dict(), ...)"
        )
    return averaged[0] if len(averaged) == 1 else candidates[0]


def _nothing(found: list[StateDict]) -> str:
    """What the file holds instead of a known network, and what to try."""
    if not found:
        return (
            "holds no tensors by name: neither a checkpoint of this tool nor a bare state dict;"
            f" expected a state dict of {KNOWN}"
        )
    largest = max(found, key=lambda one: len(one.tensors))
    shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in list(largest.tensors.items())[:3]]
    where = f" in {_listed([': '.join(largest.where)])}" if largest.where else ""
    nearest = max(FAMILIES, key=lambda one: len(one.keys) and 1 - len(_absent(one, largest.tensors)) / len(one.keys))
    missing, like = _absent(nearest, largest.tensors), ""
    if 0 < len(missing) < len(nearest.keys):
        like = f"; nearest is {nearest.title}, which has {_listed(missing, 60)}, too"
    return (
        f"no known network in its {counted(len(largest.tensors), 'tensor')}{where}: {_listed(shapes, 60)},"
        f" ...{like}; expected a state dict of {KNOWN}; {OTHERS}"
    )


def _absent(family: Family, tensors: Tensors) -> list[str]:
    """The keys of a family that no name ends with."""
    return [key for key in family.keys if not any(f".{name}".endswith(f".{key}") for name in tensors)]


def _note(path: Path, content: object, candidate: Candidate, match: Match, classifiers: list[str]) -> str:
    """One line: the network, where it was, and what was left out; empty for a bare state dict of a SphereNet."""
    parts = []
    if candidate.family.keys:
        parts = [f"{match.title}, read as {match.choice}"]
    left, place = _left_out(content, candidate, classifiers), candidate.place()
    if left or (place and parts):
        averaged = ", the averaged weights" if candidate.averaged() else ""
        parts.append(f"took {place or 'the network'}{averaged}{f', without {_listed(left)}' if left else ''}")
    return f"{path}: {'; '.join(parts)}" if parts else ""


def _left_out(content: object, candidate: Candidate, classifiers: list[str]) -> list[str]:
    """Names beside the dicts on the way to the network, and beside the network; names of one branch stand for it."""
    left, current = list[str](), content
    for name in candidate.found.where:
        if isinstance(current, dict):
            left += [str(one) for one in current if str(one) != name]
            current = next((value for one, value in current.items() if str(one) == name), None)
    prefix = candidate.prefix
    beside = [name for name in candidate.found.tensors if not name.startswith(prefix)]
    return left + _branches([*beside, *(prefix + name for name in classifiers)], prefix)


def _branches(names: Iterable[str], prefix: str) -> list[str]:
    """``head.kernel`` and ``head.t`` as ``head.*``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        root = name.removeprefix(prefix).partition(".")[0]
        groups.setdefault((prefix if name.startswith(prefix) else "") + root, []).append(name)
    return [found[0] if len(found) == 1 else f"{root}.*" for root, found in groups.items()]


def _listed(names: list[str], most_chars: int = 40) -> str:
    """Names of a file, which may be hostile: printable ASCII, not too many."""
    shown = [ascii(str(name))[1:-1][:most_chars] for name in names[:5]]
    return ", ".join([*shown, *(["..."] if len(names) > 5 else [])])
