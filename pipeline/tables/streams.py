"""Opens tables and lists that a user names, in any Unicode encoding. Only a pipe with a writer may block."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import select
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PIPE_WAIT_S = 3.0  # for a process to open the other end of a pipe
_BLOCK_BYTES = 1 << 20
UTF8_MARK = codecs.BOM_UTF8
NOT_TEXT = "not UTF-8 text; save it as UTF-8"
# Byte order marks as Windows' Notepad and PowerShell write them. That of UTF-32 begins as that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNMARKED = ((rb"(?:[^\0]\0){4}", "utf-16-le"), (rb"(?:\0[^\0]){4}", "utf-16-be"))  # of ASCII text
_PACKED = (
    (rb"\x1f\x8b", "packed by gzip; unpack it first (gunzip), or give a pipe such as <(zcat FILE)"),
    (rb"BZh[1-9]1AY&SY", "packed by bzip2; unpack it first (bunzip2)"),
    (rb"\xfd7zXZ\0", "packed by xz; unpack it first (unxz)"),
    (rb"\x28\xb5\x2f\xfd", "packed by Zstandard; unpack it first (unzstd)"),
    (rb"PK\x03\x04", "a ZIP archive or an Excel workbook; unpack it, or save it as CSV first"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook; save it as CSV first"),
)


@contextlib.contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file, or copies all that a pipe delivers to a temporary file. The stream can seek.

    Text in UTF-16 or UTF-32 is converted to UTF-8 without a byte order mark; all else is as in the file.

    Raises:
        OSError: the file cannot be read, is a folder, socket or device, is a pipe without a writer, is compressed,
            or is damaged UTF-16 text.
    """
    with _open_file(path) as stream:
        start = stream.read(16)
        stream.seek(0)
        if reason := packed(start):
            raise OSError(errno.EINVAL, reason, str(path))
        codec = next((name for mark, name in _MARKS if start.startswith(mark)), None)
        codec = codec or next((name for form, name in _UNMARKED if re.match(form, start)), None)
        if codec is None:
            yield stream
            return
        with tempfile.TemporaryFile() as copy:
            _copy_as_utf8(stream, copy, codec, path)
            copy.seek(0)
            yield copy


def packed(start: bytes) -> str | None:
    """Says how a file is compressed and what to do, from its first bytes; None if it is not."""
    return next((reason for form, reason in _PACKED if re.match(form, start)), None)


def decoded(data: bytes) -> str:
    """Returns the text of a list without byte order mark, its lines separated by newlines whatever ended them.

    Raises:
        OSError: the text is not UTF-8; the message names the line.
    """
    data = unix_lines(data.removeprefix(UTF8_MARK))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OSError(errno.EILSEQ, f"line {line}: {NOT_TEXT}") from None


def unix_lines(data: bytes) -> bytes:
    """Replaces the line ends of Windows and of old Macs by newlines."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


@contextlib.contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
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


def _copy_as_utf8(stream: BinaryIO, copy: BinaryIO, codec: str, path: Path) -> None:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        while block := stream.read(_BLOCK_BYTES):
            copy.write(decoder.decode(block).encode())
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise OSError(
            errno.EILSEQ, f"begins as {codec[:6].upper()} text, but is not; save it as UTF-8", str(path)
        ) from None


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
