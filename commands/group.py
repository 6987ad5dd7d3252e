"""The root of the command line: how commands end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from commands.interruption import Interruption
from shards.errors import LrfrError


class CommandError(LrfrError):
    """What a command cannot do. One line."""


class Commands(click.Group):
    """Shows expected failures as one line, exit 1; interruption exits 130; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with Interruption():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            failed = [line_of(stop.__context__)] if isinstance(stop.__context__, CommandError) else []
            click.echo("; ".join(["interrupted", *stop.args, *failed]), err=True)
            sys.exit(130)
        except BrokenPipeError:
            raise
        except Exception as error:
            if not expected(error):
                raise
            _fail(line_of(error))


@contextlib.contextmanager
def interruptible(kept: Callable[[], str]) -> Iterator[None]:
    """Within it, an interruption tells what is ``kept`` of the work, and how to go on, even if another error came of it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(*stop.args, *filter(None, [kept()])) from None
    except Exception as error:
        if said := kept():
            error.add_note(said)
        raise


def expected(error: Exception) -> bool:
    """True for what a user can cause: it is told in one line. Anything else is a bug."""
    return isinstance(error, LrfrError | OSError) and not isinstance(error, BrokenPipeError)


def line_of(error: Exception) -> str:
    """The line that tells an expected failure."""
    if not isinstance(error, OSError):
        return str(error)
    what = error.strerror or str(error)
    return (
        f"{os.fsdecode(error.filename)}: {what}" if error.filename else f"{what}; free it, then run the command again"
    )


def _fail(line: str) -> None:
    rank = f"rank {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    click.echo(f"Error: {rank}{line}", err=True)
    sys.exit(1)
