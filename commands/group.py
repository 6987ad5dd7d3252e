"""The root of the command line: how commands end."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

_OURS = ("shards", "pipeline", "model", "benchmarks", "commands")


class CommandError(Exception):
    """What a command cannot do. One line."""


class Commands(click.Group):
    """Shows expected failures as one line, exit 1; interruption exits 130; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, _interrupt)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted; what was finished is kept: run the same command to go on", err=True)
            sys.exit(130)
        except BrokenPipeError:
            raise
        except OSError as error:
            what = error.strerror or str(error)
            _fail(
                f"{error.filename}: {what}"
                if error.filename
                else f"{what}; free it, then run the same command to go on"
            )
        except Exception as error:
            if type(error).__module__.split(".")[0] not in _OURS:
                raise
            _fail(str(error))


def _interrupt(number: int, frame: Any) -> None:
    """Raises KeyboardInterrupt, but never amid an import: half-loaded extension modules swallow or mangle it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # SIGALRM comes back here
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _fail(line: str) -> None:
    rank = f"rank {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    click.echo(f"Error: {rank}{line}", err=True)
    sys.exit(1)
