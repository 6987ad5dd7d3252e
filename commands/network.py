"""Opens the network of ``--network``, for every command that uses a trained network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.group import interruptible
from commands.options import data, pick_device

if TYPE_CHECKING:
    from benchmarks.engine.runner import Engine
    from model.formats.network import LoadedNetwork


def open_network(path: Path | None) -> LoadedNetwork:
    """Loads the network at ``path``, or the newest checkpoint of all runs, which it names on stderr.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be loaded.
        SpecError: its preprocessing is not supported.
    """
    from model.formats.checkpoint import newest_checkpoint
    from model.formats.network import load_network
    from pipeline.prepare import check_supported
    from shards.messages import print_stderr

    network = load_network(path or newest_checkpoint(data("runs")()))
    if path is None:
        step = "no step" if network.step is None else f"step {network.step:,}"
        print_stderr(f"network: the newest, {network.path}, {step}, digest {network.digest}")
    if network.note:
        print_stderr(network.note)
    if not network.spec_stated:
        click.echo("bare state dict: it states no preprocessing, the reference's is assumed", err=True)
    check_supported(network.spec, str(network.path))
    return network


@contextlib.contextmanager
def open_engine(
    *, network: Path | None, batch_size: int, device: str | None, precision: str, no_cache: bool, max_pixels: int
) -> Iterator[tuple[Engine, LoadedNetwork, dict[str, Any]]]:
    """Opens a checkpoint and its embedding cache.

    Yields:
        The engine, the network, and its provenance with precision and device, for results.
    """
    from benchmarks.engine.cache import EmbeddingCache
    from benchmarks.engine.runner import Engine
    from model.embedder import Embedder
    from model.errors import explained_memory
    from pipeline.opencv import quiet

    loaded = open_network(network)
    spec = loaded.spec
    device = pick_device(device)
    embed = Embedder(
        loaded.backbone,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        mean=spec.mean,
        std=spec.std,
        color=spec.color,
    )
    folder = data("cache", f"{loaded.digest[:16]}-{precision}-{device}")()
    kept = "" if no_cache else "embeddings so far are cached: run the same command to continue"
    less_memory = f"lower --batch-size (it is {batch_size})" + (
        "" if precision == "bf16" else ", or use --precision bf16"
    )
    opened = contextlib.nullcontext() if no_cache else EmbeddingCache(folder)
    with interruptible(lambda: kept), explained_memory(less_memory), quiet(), opened as cache:
        yield (
            Engine(embed=embed, spec=spec, cache=cache, batch_size=batch_size, max_pixels=max_pixels),
            loaded,
            {**loaded.provenance(), "precision": precision, "device": device},
        )
