"""The root of the command line: exit codes, error messages and interruptions."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import click

from pipeline.signals import handle_signals
from shards.errors import LrfrError
from shards.messages import print_stderr, printable

_NO_FOLDER = str(OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
_MOUNT = "bring its disk or network mount back"
_REMEDIES = {
    errno.ENOSPC: "free space, or inodes (df -i)",
    errno.EDQUOT: "your quota is used up: delete files, or ask for more",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or choose a file system that holds larger files",
    errno.EROFS: "it is mounted read-only: make it writable, or choose another folder",
    errno.EACCES: "change the permissions of it or of a folder above (namei -l shows them)",
    errno.EPERM: "make it changeable (lsattr shows what is immutable)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "the whole system has too many open files: end other programs",
    errno.EAGAIN: "too many processes or threads: end some, raise the limit (ulimit -u), or lower --workers if the command has it",
    errno.ENOMEM: "out of memory: lower --workers, --batch-size or --max-pixels if the command has them, or end other"
    " programs",
    errno.EIO: "the disk or its connection fails (dmesg says more): repair it",
    errno.ESTALE: _MOUNT,
    errno.ENOTCONN: _MOUNT,
    errno.ENODEV: _MOUNT,
    errno.ENXIO: _MOUNT,
    errno.EHOSTDOWN: _MOUNT,
    errno.EHOSTUNREACH: _MOUNT,
    errno.ETIMEDOUT: _MOUNT,
}
# what errors of Python, PyArrow, C++ and the dynamic linker say where the system says EAGAIN or ENOMEM
_NO_THREAD = re.compile(r"can't start new thread|Resource temporarily unavailable")
_NO_MEMORY = re.compile(r"failed to map segment from shared object|cannot allocate memory", re.IGNORECASE)


class CommandError(LrfrError):
    """A command that cannot run or finish."""


class Commands(click.Group):
    """Root command group.

    Exit codes: 0 success, 1 expected failure (one line), 2 usage error, 130 interrupted (one line). Other exceptions
    are bugs and keep their traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they were added: that of the work."""
        return list(self.commands)

    def main(self, *arguments: Any, **options: Any) -> Any:
        _open_closed_streams()
        _use_utf8()
        try:
            return super().main(*arguments, **options)
        except OSError as error:  # of what the root command itself prints, such as --help, to a full disk
            _exit(1, f"Error: {line_of(error)}")

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with handle_signals(_exit_at_once):
                os.getcwd()  # raises an error if it has been deleted; PyTorch would end the process in its own words
                return super().invoke(ctx)
        except (KeyboardInterrupt, Exception) as error:
            interrupted = _since_interruption(error)
            if not (interrupted or expected(error)):
                raise
            if ctx.params.get("debug"):
                traceback.print_exc()
            if interrupted:
                notes = [note for one in interrupted for note in getattr(one, "__notes__", ())]
                failure = [line_of(error)] if expected(error) else []
                _exit(130, "; ".join(["interrupted", *map(printable, notes), *failure]))
            rank = rank_of_several()
            _exit(1, f"Error: {'' if rank is None else f'rank {rank}: '}{line_of(error)}")


def _open_closed_streams() -> None:
    """Opens /dev/null in place of standard streams that are closed, as by ``2>&-``.

    Otherwise their numbers would go to the next files that are opened, such as shards, and native libraries would write
    warnings into those.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open until the process ends)


def _use_utf8() -> None:
    """Starts Python again in UTF-8 mode if it takes names of files to be in another encoding, as some locales say.

    Otherwise names in tables, which are UTF-8, would not be those of the files, and a set would depend on the locale.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def rank_of_several() -> str | None:
    """The number of this process among those that ``torchrun`` started; None if it is alone."""
    rank, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return rank if rank.isdecimal() and size.isdecimal() and int(size) > 1 else None


def check_alone(command: str) -> None:
    """Raises: CommandError: ``torchrun`` started several processes, which ``command`` cannot use."""
    if rank := rank_of_several():
        among = f"but RANK is {rank} and WORLD_SIZE {os.environ['WORLD_SIZE']}"
        raise CommandError(f"{command} runs in one process, {among}: start it without torchrun, or unset WORLD_SIZE")


@contextlib.contextmanager
def interruptible(kept: Callable[[], str] = lambda: "") -> Iterator[None]:
    """The work of a command: SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the block, so that it can clean up.

    Args:
        kept: says what work is saved and how to continue; added as a note to interruptions and errors of the block.
    """
    if arrow := sys.modules.get("pyarrow"):  # its first conversion imports pandas, and would swallow an interruption
        arrow.array([0]).to_numpy()
    signals: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        signals.append(number)
        raise KeyboardInterrupt

    try:
        with handle_signals(interrupt):
            yield
        if signals:  # Python drops exceptions of finalisers
            raise KeyboardInterrupt
    except (KeyboardInterrupt, Exception) as error:
        if note := kept():
            error.add_note(note)
        raise


def expected(error: BaseException) -> bool:
    """True for errors that a user can cause; they are reported in one line. Other errors are bugs."""
    if isinstance(error, LrfrError | OSError):
        return not isinstance(error, BrokenPipeError)
    return _shortage(error) is not None


def _shortage(error: BaseException) -> int | None:
    """The error number of a shortage that is not an OSError."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return errno.ENOMEM
    return errno.EAGAIN if _NO_THREAD.search(str(error)) else None


def line_of(error: BaseException) -> str:
    """The message of an expected error, in one line."""
    return printable(_message(error))


def _message(error: BaseException) -> str:
    number = None if isinstance(error, LrfrError | OSError) else _shortage(error)
    if number is not None:
        error = OSError(number, str(error) or os.strerror(number))
    if not isinstance(error, OSError):
        return str(error)
    if str(error) == _NO_FOLDER:  # of os.getcwd; PyArrow names a file in its message
        return "the current folder has been deleted; change to another one"
    file = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{file}{reason_of(error)}"


def reason_of(error: OSError) -> str:
    """The message of an OSError, without its file; with the remedy if the system lacks something."""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{error.strerror or error}{f'; {remedy}, then run the same command again' if remedy else ''}"


def _since_interruption(error: BaseException) -> list[BaseException]:
    """The chain of exceptions from a KeyboardInterrupt to ``error``; empty if no KeyboardInterrupt led to it.

    Extension modules turn a KeyboardInterrupt into an ImportError, and cleaning up after one may fail.
    """
    chain = [error]
    while not isinstance(chain[0], KeyboardInterrupt):
        earlier = chain[0].__cause__ or chain[0].__context__  # torch's exporter raises "from" outside the except block
        if earlier is None:
            return []
        chain.insert(0, earlier)
    return chain


def _exit_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the process before its work starts: there is nothing to clean up, and an import could swallow an exception."""
    with contextlib.suppress(OSError):  # nobody reads it any more
        os.write(2, b"interrupted\n")
    os._exit(130)


def _exit(code: int, line: str) -> NoReturn:
    """Ends the process, and worker processes that are left.

    The traceback of an interruption may keep a suspended generator that would end its workers when it is closed. They
    ignore signals, so that Python would wait for them without end.
    """
    import multiprocessing

    for worker in multiprocessing.active_children():
        worker.kill()
    print_stderr(line)
    sys.exit(code)
