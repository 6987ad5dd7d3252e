"""Commands that embed, under ``torchrun``: rank 0 runs the command, the others embed their share of what it hands out.

The others wait for what rank 0 broadcasts: the options of a network to open, then lists of requests to embed, and None, which
ends the network or, where none is open, the command.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from commands.group import CommandError, rank_of_several
from shards.errors import LrfrError

if TYPE_CHECKING:
    from benchmarks.engine.runner import Engine
    from benchmarks.engine.team import Job, Part, Team
    from model.formats.network import LoadedNetwork
    from model.training.ranks import Ranks

_KEY = "lrfr.ranks"  # in the meta data of click's context


def local(device: str) -> str:
    """The GPU of this process among those of ``torchrun``; ``device`` without it."""
    if rank_of_several() is None:
        return device
    from model.training.launch import local_device

    return local_device(device)


def current_ranks() -> Ranks | None:
    """The ranks that the command runs in; None if it is alone."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_KEY)


def run_in_ranks(command: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Runs a command on rank 0 of ``torchrun``; the other ranks embed for it."""
    from commands.options import pick_device
    from model.training.ranks import open_ranks

    with open_ranks(local(pick_device(options["device"]))) as ranks:
        if not ranks.first:
            _follow(ranks)
            return
        click.get_current_context().meta[_KEY] = ranks
        try:
            command(**options)
        except Exception:
            ranks.broadcast(None)
            ranks.any(False)  # as open_ranks does where nothing failed
            raise
        ranks.broadcast(None)


@contextlib.contextmanager
def hand_out(ranks: Ranks, options: Mapping[str, Any]) -> Iterator[tuple[Engine, LoadedNetwork, dict[str, Any]]]:
    """Opens a network on all ranks; what the engine embeds, all of them embed. For rank 0.

    Raises:
        RankError, LrfrError, OSError: one of the ranks cannot open it.
        CommandError: they have read different networks.
    """
    ranks.broadcast(options)
    with contextlib.ExitStack() as stack:
        engine, network, facts = _open_together(ranks, stack, options)
        try:
            yield dataclasses.replace(engine, team=team_of(ranks)), network, facts
        except Exception:
            ranks.broadcast(None)
            raise
        ranks.broadcast(None)


def team_of(ranks: Ranks) -> Team:
    """The processes that ``embed_jobs`` for rank 0."""
    from benchmarks.engine.team import Team

    def share(job: Job, work: Callable[[], Part]) -> list[Part]:
        ranks.broadcast(job)
        return ranks.collect(work, on_first=True)

    return Team(size=ranks.size, share=share)


def embed_jobs(ranks: Ranks, engine: Engine) -> None:
    """Embeds this rank's share of the jobs that rank 0 broadcasts, until it sends None."""
    while (job := ranks.broadcast()) is not None:
        ranks.collect(functools.partial(engine.embed_share, job, ranks.rank, ranks.size), on_first=True)


def _follow(ranks: Ranks) -> None:
    """What the other ranks do."""
    while (options := ranks.broadcast()) is not None:
        with contextlib.ExitStack() as stack:
            try:
                engine, _, _ = _open_together(ranks, stack, options)
            except (LrfrError, OSError):  # rank 0 says so
                continue
            embed_jobs(ranks, engine)


def _open_together(
    ranks: Ranks, stack: contextlib.ExitStack, options: Mapping[str, Any]
) -> tuple[Engine, LoadedNetwork, dict[str, Any]]:
    """Opens a network on this rank, if all can and find the same one."""
    from commands.network import open_alone

    opened = []

    def work() -> str:
        opened.append(stack.enter_context(open_alone(**options)))
        return opened[0][1].digest

    check_same(ranks.collect(work), "network", "--network")
    return opened[0]


def check_same(digests: list[str], noun: str, option: str) -> None:
    """Raises: CommandError: the ranks have read different networks; ``digests``: what each has read."""
    if different := [rank for rank, digest in enumerate(digests) if digest != digests[0]]:
        raise CommandError(
            f"rank {different[0]} has read another {noun} than rank 0; name the same file on all machines with {option}"
        )
