"""Opens the network of ``train --teacher`` and its embeddings of a shard set, on all ranks."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING

from commands.group import interruptible
from commands.network import cache_folder, open_network
from commands.ranks import check_same, embed_jobs, team_of
from shards.messages import counted, print_stderr

if TYPE_CHECKING:
    from benchmarks.engine.runner import Engine
    from benchmarks.engine.shard_set import SetEmbeddings
    from model.formats.network import LoadedNetwork
    from model.training.config import TrainConfig
    from model.training.ranks import Ranks
    from model.training.teacher import Targets, Teacher
    from shards.index import ShardIndex

FILE = "embeddings.rows"


def open_teacher(config: TrainConfig, run: Path, ranks: Ranks) -> Teacher | None:
    """Loads the network of ``config.teacher``, if there is one. A collective.

    Returns:
        Without its network, if ``run`` began with it and it is gone: its cached embeddings will do.
    """
    if config.teacher is None:
        return None
    from model.errors import CheckpointError
    from model.training.start import known_teacher
    from model.training.teacher import Teacher

    path, preprocessing = Path(config.teacher), config.teacher_preprocessing
    found: list[Teacher] = []

    def load() -> str:
        try:
            found.append(Teacher.of(open_network(path, preprocessing, "--teacher-preprocessing")))
        except CheckpointError as error:
            known = known_teacher(run, config.teacher)
            if known is None or path.exists() or config.losses.attention:  # which runs the teacher in every step
                raise
            print_stderr(f"{error}; the embeddings that this run has cached are used")
            found.append(known)
        return found[0].digest

    with contextlib.nullcontext() if ranks.first else contextlib.redirect_stderr(io.StringIO()):
        digests = ranks.collect(load)
    check_same(digests, "teacher", "--teacher")
    return found[0]


def teacher_targets(teacher: Teacher, index: ShardIndex, ranks: Ranks, device: str) -> Targets:
    """The teacher's embeddings of all images of a shard set, computed by all ranks where they are not cached."""
    from benchmarks.engine.shard_set import SetEmbeddings
    from model.errors import explained_memory
    from model.training.teacher import Targets, principal_components

    folder = cache_folder(teacher.digest, "fp32", device.partition(":")[0], "mean")
    store = SetEmbeddings(folder / f"set-{index.manifest.index_digest}" / FILE, index, teacher.digest)
    kept = "the teacher's embeddings so far are kept: run the same command to continue"
    with interruptible(lambda: kept), explained_memory("name a smaller --teacher"):
        computed = _complete(store, teacher.network, ranks, device)
    ranks.collect(store.open)
    basis, share_text = None, ""
    if ranks.first and store.length > Targets.length:
        basis, share = principal_components(store, len(store))
        share_text = f", of which {Targets.length} principal components keep {share:.1%}"
    if ranks.first:
        images = f"{counted(computed, 'image')} embedded" if computed else "all embeddings cached"
        print_stderr(
            f"teacher: {teacher.name}, digest {teacher.digest}, {store.length} numbers{share_text}; {images}: {store.path}"
        )
    return Targets(store, basis=ranks.broadcast(basis), device=device)


def _complete(store: SetEmbeddings, network: LoadedNetwork | None, ranks: Ranks, device: str) -> int:
    """Embeds what is not stored; returns the number of images."""
    from benchmarks.engine.runner import Engine
    from model.embedder import Embedder

    if network is None:
        ranks.collect(store.check_complete if ranks.first else int)
        return 0
    spec = network.spec
    embed = Embedder(network.backbone, device=device, mean=spec.mean, std=spec.std, color=spec.color, flip="mean")
    engine = Engine(embed=embed, spec=spec)
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
        ranks.broadcast(None)
