"""Opens files that a user names, such as tables and lists; nothing but a pipe with a writer is waited for."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PIPE_WAIT_S = 3.0  # for somebody to open the other end of a pipe
_BLOCK_BYTES = 1 << 20


@contextlib.contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file, or copies all that a pipe delivers to a temporary file. The stream can seek.

    Raises:
        OSError: the file cannot be read, is a folder, socket or device, or is a pipe that nobody writes to.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode):
            with open(handle, "rb", closefd=False) as stream:
                yield stream
        elif stat.S_ISFIFO(mode):
            with tempfile.TemporaryFile() as copy:
                _copy_pipe(handle, copy, path)
                copy.seek(0)
                yield copy
        else:
            raise OSError(errno.EINVAL, "neither a regular file nor a pipe", str(path))
    finally:
        os.close(handle)


def _copy_pipe(handle: int, copy: BinaryIO, path: Path) -> None:
    """Copies a pipe to its end. ``handle`` does not block: reading tells a pipe without a writer from a slow one."""
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    deadline = time.monotonic() + PIPE_WAIT_S
    has_writer = False
    while True:
        try:
            block = os.read(handle, _BLOCK_BYTES)
        except BlockingIOError:
            has_writer = True
            poller.poll()
            continue
        if block:
            has_writer = True
            copy.write(block)
        elif has_writer:
            return
        elif time.monotonic() > deadline:
            raise OSError(errno.EPIPE, "a pipe that nobody writes to", str(path))
        else:
            time.sleep(0.02)
