"""What a scoring command writes: refused before the work where it could not be written after it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from commands.group import CommandError


class OutputPath(click.ParamType):
    """A file to write, or a folder to write into, that need not be there yet."""

    name = "path"

    def __init__(self, *, folder: bool = False) -> None:
        self._folder = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        wanted = "a folder to write into" if self._folder else "a file to write"
        if not str(value):
            self.fail(f"an empty name; expected {wanted}", param, ctx)
        if path.exists() and not (path.is_dir() if self._folder else path.is_file()):
            kind = "a folder" if path.is_dir() else "a file" if path.is_file() else "neither file nor folder"
            self.fail(f"{path} is {kind}; expected {wanted}", param, ctx)
        places = [path, *path.absolute().parents] if self._folder else path.absolute().parents
        place = next(place for place in places if place.exists())
        if not place.is_dir():
            self.fail(f"{path}: {place} is not a folder; choose another place", param, ctx)
        try:
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            self.fail(f"{path}: {place} cannot be written to ({error.strerror}); choose another place", param, ctx)
        return path


def check_apart(json_file: Path | None, report: Path | None) -> None:
    """Raises: click.UsageError: the two would overwrite each other."""
    from benchmarks.report.page import is_report_file

    if json_file is None or report is None:
        return
    file, folder = json_file.resolve(), report.resolve()
    if file in (folder, *folder.parents):
        raise click.UsageError(f"--json {json_file} and --report {report}: a file cannot be a folder; name two places")
    if file.parent == folder and is_report_file(file.name):
        raise click.UsageError(f"--json {json_file}: the report has a file of this name itself; choose another name")


@contextlib.contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Names the option where what it asks for cannot be written."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{option} {path}: cannot be written: {error.strerror or error}") from None
