"""Opens the network of ``train --teacher`` and its embeddings of a shard set, on all ranks."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING

from commands.group import CommandError, interruptible
from commands.network import cache_folder, open_network
from commands.ranks import embed_jobs, team_of

if TYPE_CHECKING:
    from benchmarks.engine.runner import Engine
    from benchmarks.engine.shard_set import SetEmbeddings
    from model.formats.network import LoadedNetwork
    from model.training.config import TrainConfig
    from model.training.ranks import Ranks
    from model.training.teacher import Targets
    from shards.index import ShardIndex

FILE = "embeddings.rows"


def open_teacher(config: TrainConfig, ranks: Ranks) -> LoadedNetwork | None:
    """Loads the network of ``config.teacher``, if there is one. A collective."""
    if config.teacher is None:
        return None
    path, preprocessing = Path(config.teacher), config.teacher_preprocessing

    loaded: list[LoadedNetwork] = []

    def load() -> str:
        loaded.append(open_network(path, preprocessing, "--teacher-preprocessing"))
        return loaded[0].digest

    with contextlib.nullcontext() if ranks.first else contextlib.redirect_stderr(io.StringIO()):
        digests = ranks.collect(load)
    if different := [rank for rank, digest in enumerate(digests) if digest != digests[0]]:
        raise CommandError(
            f"rank {different[0]} has read another teacher than rank 0; name the same file on all machines"
        )
    return loaded[0]


def teacher_targets(network: LoadedNetwork, index: ShardIndex, ranks: Ranks, device: str) -> Targets:
    """The teacher's embeddings of all images of a shard set, computed by all ranks where they are not cached."""
    from benchmarks.engine.shard_set import SetEmbeddings
    from model.training.teacher import Targets, principal_components
    from shards.messages import counted, print_stderr

    folder = cache_folder(network, "fp32", device.partition(":")[0], "mean") / f"set-{index.manifest.index_digest}"
    store = SetEmbeddings(folder / FILE, index, network.digest)
    with interruptible(lambda: "the teacher's embeddings so far are kept: run the same command to continue"):
        computed = _complete(store, network, ranks, device)
    ranks.collect(store.open)
    basis, told = None, ""
    if ranks.first and store.length > Targets.length:
        basis, kept = principal_components(store, len(store))
        told = f", of which {Targets.length} principal components keep {kept:.1%}"
    if ranks.first:
        images = f"{counted(computed, 'image')} embedded" if computed else "all embeddings cached"
        print_stderr(
            f"teacher: {network.path}, digest {network.digest}, {store.length} numbers{told}; {images}: {store.path}"
        )
    return Targets(store, basis=ranks.tell(basis), device=device)


def _complete(store: SetEmbeddings, network: LoadedNetwork, ranks: Ranks, device: str) -> int:
    """Embeds what is not stored; returns the number of images."""
    engine = _engine(network, device)
    if not ranks.first:
        embed_jobs(ranks, engine)
        return ranks.collect(int)[0]
    if ranks.size == 1:
        return store.complete(engine, verify=not network.cached)
    return ranks.collect(lambda: _lead(store, network, ranks, engine))[0]


def _lead(store: SetEmbeddings, network: LoadedNetwork, ranks: Ranks, engine: Engine) -> int:
    try:
        return store.complete(dataclasses.replace(engine, team=team_of(ranks)), verify=not network.cached)
    finally:
        ranks.tell(None)


def _engine(network: LoadedNetwork, device: str) -> Engine:
    from benchmarks.engine.runner import Engine
    from model.embedder import Embedder

    spec = network.spec
    embed = Embedder(network.backbone, device=device, mean=spec.mean, std=spec.std, color=spec.color, flip="mean")
    return Engine(embed=embed, spec=spec)
