"""Output files of scoring commands: paths are validated before the work, results are saved as they arrive."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.group import CommandError, interruptible, rank_of_several, reason_of
from commands.options import check_local, data, is_store_url, local_path
from pipeline.signals import delayed_interruption
from shards.messages import counted, print_stderr

if TYPE_CHECKING:
    from benchmarks.report.page import Report
    from benchmarks.scoring.results import Result
    from shards.store import Store


class OutputPath(click.ParamType):
    """A writable path of a file, or of a folder, that need not exist yet; or a URL, to which it is uploaded at the end.

    A file that is there is replaced, but only by one of its kind: ``--out photos/*.jpg`` names a photograph.

    Args:
        folder: a folder, not a file.
        kind: what the file is.
        starts: bytes that every file of this kind begins with, one of these; none: any file is replaced.
    """

    name = "path"

    def __init__(self, *, folder: bool = False, kind: str = "", starts: tuple[bytes, ...] = ()) -> None:
        self._folder = folder
        self.kind = "a folder" if folder else kind
        self._starts = starts

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from shards.files import remove_temporaries

        if is_store_url(value):
            value = self._staged(str(value), param, ctx)
        value = local_path(value)
        check_local(value)
        path = Path(value)
        expected = "a folder to write into" if self._folder else "a file to write"
        if path.exists() and not (path.is_dir() if self._folder else path.is_file()):
            kind = "a folder" if path.is_dir() else "a file" if path.is_file() else "neither file nor folder"
            self.fail(f"{path} is {kind}; expected {expected}", param, ctx)
        if path.is_symlink() and not path.exists():  # the file would replace the link
            found = f"is a link to {os.readlink(path)}, which is not there"
            self.fail(f"{path} {found}; delete it, or choose another path", param, ctx)
        if self._starts and path.is_file() and path.stat().st_size and not self._is_replaceable(path):
            self.fail(
                f"{path} is there and is not {self.kind}; delete it if you do not need it, or choose another name",
                param,
                ctx,
            )
        candidates = [path, *path.absolute().parents] if self._folder else path.absolute().parents
        parent = next(candidate for candidate in candidates if candidate.exists())
        if not parent.is_dir():
            self.fail(f"{path}: {parent} is not a folder; choose another path", param, ctx)
        try:
            tempfile.TemporaryFile(dir=parent).close()
        except OSError as error:
            self.fail(f"{path}: {parent} is not writable ({error.strerror}); choose another path", param, ctx)
        remove_temporaries(*((path,) if self._folder else (path.parent, path.name)))
        return path

    def _is_replaceable(self, path: Path) -> bool:
        try:
            with path.open("rb") as stream:
                return stream.read(max(map(len, self._starts))).startswith(self._starts)
        except OSError:
            return False

    def _staged(self, url: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Returns a path on this machine, whose content is uploaded to the URL when the command ends."""
        from shards.store import Store, StoreError

        try:
            store = Store(url)
            if not self._folder and store.url.count("/") < 3:
                raise StoreError(f"{url}: a bucket; expected a file in it, such as {store}/file")
        except StoreError as error:
            self.fail(str(error), param, ctx)
        place, name = (
            (store, "") if self._folder else (Store(store.url.rpartition("/")[0]), store.url.rpartition("/")[2])
        )
        start = place.start(name or "index.html", 16)  # also finds that there is no bucket
        if name and start and self._starts and not start.startswith(self._starts):
            self.fail(f"{url} is there and is not {self.kind}; choose another name", param, ctx)
        # not that of builds and runs, which may hold what their store lacks: a report may go where a run is
        folder = data("cache", "stores", "results", store.folder_name)()
        path = folder / name
        if rank_of_several() in (None, "0"):
            if self._folder and folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            if name:
                path.unlink(missing_ok=True)
            if ctx is not None:
                ctx.call_on_close(functools.partial(_upload, place, folder, path))
        return path


def _upload(store: Store, folder: Path, written: Path) -> None:
    """Uploads the files that a command has written, also one that failed: they are whole."""
    from shards.store import StoreError

    ended_by = sys.exc_info()[1]
    paths = [path for path in sorted([written, *written.rglob("*")]) if path.is_file()]
    try:
        for path in paths:
            store.upload(path, path.relative_to(folder).as_posix())
    except StoreError as error:
        line = f"{error}; the files are in {folder}"
        if ended_by is not None:  # which is reported last
            print_stderr(line)
            return
        raise StoreError(line) from None
    if paths:
        print_stderr(f"uploaded to {store}: {counted(len(paths), 'file')}")


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> None:
    """Checks that a command neither writes two files to one path nor replaces what it reads.

    Args:
        outputs: option -> path.

    Raises:
        click.UsageError: it would.
    """
    taken = dict.fromkeys(map(os.path.realpath, inputs), "is a file that this command reads")
    for option, path in outputs.items():
        if path is not None:
            found = taken.setdefault(os.path.realpath(path), option)
            if found != option:
                reason = found if found not in outputs else f"{found} names the same file"
                raise click.UsageError(f"{option} {path}: {reason}; choose another name")


FOLDER = OutputPath(folder=True)
PARQUET_FILE = OutputPath(kind="a Parquet file", starts=(b"PAR1",))
JSON_FILE = OutputPath(kind="a JSON file", starts=(b"{", b"["))
PNG_FILE = OutputPath(kind="a PNG file", starts=(b"\x89PNG",))
PAGE = OutputPath(kind="an HTML page", starts=(b"<!doctype html", b"<!DOCTYPE html"))
report_option = click.option(
    "--report",
    type=FOLDER,
    help="Write a report to a folder: HTML, Markdown, CSV, LaTeX, figures as PNG, SVG and PDF.",
)


class PagePath(click.ParamType):
    """A page to write: a file ``.html``, or a folder for a page of a given name."""

    name = "path"

    def __init__(self, page: str) -> None:
        self._page = page

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        value = local_path(value)
        if Path(value).suffix.lower() != ".html":
            value = FOLDER.convert(value, param, ctx) / self._page
        return PAGE.convert(value, param, ctx)


@contextlib.contextmanager
def saved_results(
    json_file: Path | None, report: Path | None, total: int, *, faces: bool
) -> Iterator[Callable[[Result], None]]:
    """Yields a function that saves a result.

    JSON file and report are rewritten after each result. An error or an interruption of the block gets a note of what
    is saved.

    Args:
        total: number of results of a complete run.
        faces: show images of the data sets in the report.

    Raises:
        click.UsageError: the JSON file and the report would overwrite each other.
        CommandError: a file cannot be written.
    """
    from benchmarks.scoring.results import write_json

    _check_distinct(json_file, report)
    results: list[Result] = []
    pages = open_report(report, faces=faces) if report else None
    saved: dict[str, str] = {}

    def save(result: Result) -> None:
        results.append(result)
        if json_file:
            with writing("--json", json_file):
                write_json(results, json_file)
            saved["--json"] = f"{len(results)} of {counted(total, 'result')} saved in {json_file}"
        if report and pages:
            with delayed_interruption(), writing("--report", report):  # finalisers of matplotlib would swallow one
                saved["--report"] = f"report: {pages.add(result)}"

    with interruptible(lambda: "; ".join(saved.values())):
        yield save
    if "--report" in saved:
        click.echo(saved["--report"])


def open_report(folder: Path, *, faces: bool = True) -> Report:
    """The report in a folder. Commands that write none do not wait for Matplotlib. Raises: ReportError: see ``Report``."""
    from benchmarks.report.page import Report

    return Report(folder, faces=faces)


def _check_distinct(json_file: Path | None, report: Path | None) -> None:
    if json_file is None or report is None:
        return
    from benchmarks.report.page import is_report_file

    file, folder = (Path(os.path.realpath(path)) for path in (json_file, report))
    if file in (folder, *folder.parents):
        raise click.UsageError(
            f"--json {json_file} and --report {report}: a path cannot be both file and folder; choose two paths"
        )
    if file.parent == folder and is_report_file(file.name):
        raise click.UsageError(f"--json {json_file}: the report writes a file of this name; choose another name")


@contextlib.contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Turns an OSError of the block into a CommandError that names the option."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{option} {path}: cannot be written: {reason_of(error)}") from None
