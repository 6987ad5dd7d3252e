"""From a checkpoint to what embeds images, for every command that uses a trained network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from commands.group import interruptible
from commands.options import data, pick_device


def open_network(checkpoint: Path | None) -> tuple[Any, Any, dict[str, Any]]:
    """The backbone, how its images are prepared, and facts; of the newest run's checkpoint where none is named."""
    from model.formats.checkpoint import load_backbone, newest_checkpoint
    from pipeline.prepare import follow

    backbone, stated, facts = load_backbone(checkpoint or newest_checkpoint(data("runs")()))
    if stated is None:
        click.echo("bare state dict: it states no preprocessing, the reference's is assumed", err=True)
    return backbone, follow(stated, facts), facts


@contextlib.contextmanager
def open_engine(
    *, checkpoint: Path | None, batch_size: int, device: str | None, precision: str, no_cache: bool
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The engine for a checkpoint, its cache open, and facts about the network and how it computes."""
    from benchmarks.engine.cache import EmbeddingCache
    from benchmarks.engine.runner import Engine
    from model.embedder import Embedder

    backbone, spec, facts = open_network(checkpoint)
    device = pick_device(device)
    embed = Embedder(backbone, device=device, precision=precision, mean=spec.mean, std=spec.std)  # type: ignore[arg-type]
    network = data("cache", f"{facts['digest'][:16]}-{precision}-{device}")()
    kept = "" if no_cache else "embeddings so far are cached: run the same command to go on"
    with interruptible(lambda: kept), contextlib.nullcontext() if no_cache else EmbeddingCache(network) as cache:
        yield (
            Engine(embed=embed, spec=spec, cache=cache, batch_size=batch_size),
            {
                **facts,
                "precision": precision,
                "device": device,
            },
        )
