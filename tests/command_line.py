"""The commands of the command line."""

from __future__ import annotations

import click

import cli


def commands(group=cli.main, prefix=()):
    """Name and command of everything on the command line, such as ``bench lfw``."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        else:
            yield " ".join((*prefix, name)), command
