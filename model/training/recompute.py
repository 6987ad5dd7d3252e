"""Activation checkpointing: blocks of a backbone are computed again in the backward pass, which saves memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_CONTAINERS = (nn.Sequential, nn.ModuleList)


def blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network: the outermost modules within a container that have layers of their own."""
    found = []
    for child in network.children():
        if isinstance(network, _CONTAINERS) and not isinstance(child, _CONTAINERS) and any(child.children()):
            found.append(child)
        else:
            found += blocks(child)
    return found


@contextlib.contextmanager
def recomputed(network: nn.Module, enabled: bool) -> Iterator[None]:
    """In this block, ``network`` keeps only the inputs of its ``blocks`` for the backward pass.

    Outputs and gradients are the same, and so are batch statistics: they move in the first computation only.
    """
    chosen = blocks(network) if enabled else []
    try:
        for module in chosen:
            context = functools.partial(_contexts, module)
            # an attribute of the instance, for this call only: copies of the network must not share it
            module.forward = functools.partial(  # type: ignore[method-assign]
                checkpoint, module.forward, use_reentrant=False, context_fn=context
            )
        yield
    finally:
        for module in chosen:
            del module.forward


def _contexts(
    module: nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    return contextlib.nullcontext(), _same_buffers(module)


@contextlib.contextmanager
def _same_buffers(module: nn.Module) -> Iterator[None]:
    before = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(module.buffers(), before, strict=True):
                buffer.copy_(value)
