"""Opens the network of ``--network``, for every command that uses a trained network."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.group import CommandError, interruptible, rank_of_several
from commands.options import data, pick_device
from commands.ranks import current_ranks, hand_out, local
from shards.messages import print_stderr

if TYPE_CHECKING:
    from benchmarks.engine.runner import Engine
    from benchmarks.scoring.protocols import Protocol
    from model.embedder import Flip, Precision
    from model.formats.network import LoadedNetwork


def open_network(path: Path | None, preprocessing: str | None = None, option: str = "--preprocessing") -> LoadedNetwork:
    """Loads the network at ``path``, or the newest checkpoint of all runs, which it names on stderr.

    Args:
        preprocessing: name or TOML file of another preprocessing than the network's own.
        option: what gives it, for messages.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be loaded.
        SpecError: its preprocessing is not supported, or ``preprocessing`` names none.
    """
    from model.formats.checkpoint import newest_checkpoint
    from model.formats.network import load_network
    from pipeline.prepare import check_supported
    from pipeline.sources.spec_file import read_spec

    given = None if preprocessing is None else read_spec(preprocessing, option)
    network = load_network(path or newest_checkpoint(data("runs")()), given)
    if path is None:
        step = "no step" if network.step is None else f"step {network.step:,}"
        print_stderr(f"network: the newest, {network.path}, {step}, digest {network.digest}")
    if network.note:
        print_stderr(network.note)
    if not network.spec_stated:
        print_stderr(f"{network.path}: states no preprocessing; assumed: {network.spec}; {option} names another one")
    check_supported(network.spec, str(network.path))
    return network


def cache_folder(digest: str, precision: Precision, device: str, flip: Flip) -> Path:
    """Where embeddings of a network are cached."""
    fused = [] if flip == "none" else [flip]
    return data("cache", "-".join([digest[:16], precision, device, *fused]))()


def warn_of_guess(network: LoadedNetwork, protocol: Protocol, device: str) -> bool:
    """Warns if the preprocessing that is assumed of a graph is probably wrong, as faces of a benchmark show.

    Returns:
        Whether nothing is left to find out.
    """
    from benchmarks.errors import ProtocolError
    from benchmarks.scoring.protocols import PairProtocol
    from commands.diagnosis.findings import Level
    from commands.diagnosis.network import guess, guess_findings

    if network.spec_stated or network.trainable:
        return True
    if not isinstance(protocol, PairProtocol) or not protocol.alignment_stated:  # `run` asks for it
        return False
    try:
        found = guess(network, protocol, device)
    except ProtocolError:  # too few pairs: `run` says so
        return False
    for finding in guess_findings(network, found, protocol.title):
        if finding.level is Level.WARN:
            print_stderr(f"warning: {finding.text}; {finding.remedy}")
    return True


@contextlib.contextmanager
def open_engine(**options: Any) -> Iterator[tuple[Engine, LoadedNetwork, dict[str, Any]]]:
    """Opens a network and its embedding cache, on all ranks of ``torchrun``, which embed together.

    Args:
        options: those of ``engine_options``.

    Yields:
        The engine, the network, and its provenance with precision, device and flip fusion, for results.
    """
    ranks = current_ranks()
    with open_alone(**options) if ranks is None else hand_out(ranks, options) as opened:
        yield opened


@contextlib.contextmanager
def open_alone(
    *,
    network: Path | None,
    preprocessing: str | None,
    flip: Flip,
    batch_size: int,
    device: str | None,
    precision: Precision,
    no_cache: bool,
    max_pixels: int,
) -> Iterator[tuple[Engine, LoadedNetwork, dict[str, Any]]]:
    """As ``open_engine``, for this process."""
    from benchmarks.engine.cache import EmbeddingCache
    from benchmarks.engine.runner import Engine
    from model.embedder import Embedder
    from model.errors import explained_memory
    from pipeline.opencv import quiet

    with contextlib.nullcontext() if rank_of_several() in (None, "0") else contextlib.redirect_stderr(io.StringIO()):
        loaded = open_network(network, preprocessing)  # rank 0 prints the warnings
    if not loaded.trainable and precision != "fp32":
        raise CommandError(f"--precision {precision}: {loaded.path} is run as it is; leave --precision out")
    spec = loaded.spec
    device = pick_device(device)
    embed = Embedder(
        loaded.backbone,
        device=local(device),
        precision=precision,
        mean=spec.mean,
        std=spec.std,
        color=spec.color,
        flip=flip,
    )
    fused = {} if flip == "none" else {"flip": flip}
    no_cache = no_cache or not loaded.cached
    kept = "" if no_cache else "embeddings so far are cached: run the same command to continue"
    less_memory = f"lower --batch-size (it is {batch_size})" + (
        "" if precision == "bf16" or not loaded.trainable else ", or use --precision bf16"
    )
    opened = (
        contextlib.nullcontext() if no_cache else EmbeddingCache(cache_folder(loaded.digest, precision, device, flip))
    )
    with interruptible(lambda: kept), explained_memory(less_memory), quiet, opened as cache:
        yield (
            Engine(embed=embed, spec=spec, cache=cache, batch_size=batch_size, max_pixels=max_pixels),
            loaded,
            {**loaded.provenance(), "precision": precision, "device": device, **fused},
        )
