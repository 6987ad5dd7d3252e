"""Downloads one file: resumed, from the first mirror that serves the right content, named only when complete."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.fetch.assets import FetchError, RemoteFile
from pipeline.fetch.http_request import RequestError, open_url, proxy_of, request_error
from pipeline.progress import Progress
from shards.files import BLOCK_BYTES, naming, sha256_of
from shards.locks import sync_folder
from shards.messages import print_stderr

TIMEOUT_S = 30.0
MIN_BYTES_PER_S = 1024  # a slower connection is a stalled one
ATTEMPTS = 5  # in a row that bring less than PROGRESS_BYTES each
PROGRESS_BYTES = 1 << 20
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 120.0  # between attempts: doubled each time; a server may ask for up to the second
_KB = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Where files come from.

    Attributes:
        mirrors: addresses of folders that hold files under their names; tried in order, before the official ones.
        timeout_s: seconds without data after which a connection is given up.
    """

    mirrors: tuple[str, ...] = ()
    timeout_s: float = TIMEOUT_S

    def urls(self, file: RemoteFile) -> list[str]:
        """The addresses of a file, in the order in which they are tried."""
        return [*(f"{mirror.rstrip('/')}/{file.name}" for mirror in self.mirrors), *file.urls]


class _Partial:
    """The beginning of a file that has arrived, ``NAME.download``."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.download")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @contextlib.contextmanager
    def open_at(self, start: int) -> Iterator[BinaryIO]:
        """Opens the file for writing from byte ``start`` on, and drops what follows. A link is not followed."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        with naming(self.path), open(os.open(self.path, flags, 0o666), "wb") as stream:
            stream.truncate(start)
            stream.seek(start)
            yield stream

    def commit(self, path: Path) -> None:
        sync_folder(self.path)  # or file
        os.replace(self.path, path)
        sync_folder(path.parent)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


def require_file(file: RemoteFile, path: Path, sources: Sources) -> None:
    """Downloads ``file`` to ``path`` unless it is there.

    A download that was interrupted continues where it ended, at any mirror: the digest decides in the end.

    Raises:
        FetchError: no mirror serves the file, or ``path`` is another file.
        OSError: the disk is full, or a file cannot be written.
    """
    if path.exists():
        if (found := sha256_of(path)) != file.sha256:
            raise FetchError(
                f"{path}: not the published file (SHA-256 {found[:12]}..., expected {file.sha256[:12]}...); move it away,"
                " then run the same command again"
            )
        return
    partial, failures = _Partial(path), []
    with Progress(file.name, max(file.size // _KB, 1), "kB") as progress:
        for url in sources.urls(file):
            try:
                _fetch(url, file, partial, sources.timeout_s, progress)
            except RequestError as error:
                through = f", through the proxy {proxy}" if (proxy := proxy_of(url)) else ""
                failures.append(f"{url}: {error}{through}")
                continue
            partial.commit(path)
            return
    kept = f"; {partial.size:,} bytes are kept, the same command continues" if partial.size else ""
    raise FetchError(
        f"{file.name}: not downloaded ({'; '.join(failures)}){kept}. Without a network, get the file elsewhere (SHA-256"
        f" {file.sha256}) and put it at {path}, or name your own server with --mirror, then run"
        " the same command again"
    )


def _fetch(url: str, file: RemoteFile, partial: _Partial, timeout_s: float, progress: Progress) -> None:
    """Completes ``partial`` from one address; tries again after failures that may pass.

    Raises:
        RequestError: the server cannot be reached, refuses, or serves another file.
    """
    attempt, arrived, restarted = 0, 0, False
    while True:
        start = partial.size
        try:
            if start == 0 or sha256_of(partial.path) != file.sha256:
                _receive(url, file, partial, timeout_s, progress)
            if (found := sha256_of(partial.path)) == file.sha256:
                return
            size = partial.size
            partial.discard()
            if start == 0 or restarted:
                reason = (
                    f"serves another file ({size:,} bytes, SHA-256 {found[:12]}..., expected {file.sha256[:12]}...)"
                )
                raise RequestError(reason, retry=False)
            restarted = True
            print_stderr(f"{file.name}: what was kept does not fit; starting again")
        except RequestError as error:
            gained = max(partial.size - start, 0)
            arrived += gained
            attempt = 1 if gained >= PROGRESS_BYTES else attempt + 1
            wait_s = FIRST_WAIT_S * 2 ** (attempt - 1) if error.wait_s is None else error.wait_s
            if not error.retry or attempt >= ATTEMPTS or (error.offline and not arrived):
                raise
            if wait_s > MAX_WAIT_S:
                raise RequestError(f"{error}; it asks to wait {wait_s:,.0f} s", retry=False) from None
            print_stderr(f"{file.name}: {url}: {error}; trying again in {wait_s:g} s")
            time.sleep(wait_s)


def _receive(url: str, file: RemoteFile, partial: _Partial, timeout_s: float, progress: Progress) -> None:
    """Sends one request, and appends the response to ``partial``.

    Raises:
        RequestError: the response is not a part of the file, or ended early.
    """
    start = partial.size
    headers = {"Accept-Encoding": "identity"}
    if start:  # the digest of the whole shows whether the rest is of the same file
        headers["Range"] = f"bytes={start}-"
    try:
        response = open_url(url, headers, timeout_s)
    except RequestError as error:
        if start and error.status == 416:  # nothing after the start: the digest shows whether this is all of it
            return
        raise
    with response:
        if response.status == 200:  # the whole file: the server does not resume, or has another version
            start = 0
        elif not response.headers.get("Content-Range", "").strip().startswith(f"bytes {start}-"):
            partial.discard()
            raise RequestError("continues at another byte than asked", retry=True)
        length = response.headers.get("Content-Length", "").strip()
        end = start + int(length) if length.isdecimal() else None
        progress.skip(start // _KB - progress.n)
        with partial.open_at(start) as stream:
            received = start
            for block in _blocks(response, url, timeout_s):
                received += len(block)
                if received > 2 * file.size:
                    raise RequestError(f"sends more than twice the {file.size:,} bytes of the file", retry=False)
                stream.write(block)
                progress.update(received // _KB - progress.n)
        if end is not None and received < end:
            raise RequestError(f"the connection ended after {received:,} of {end:,} bytes", retry=True)


def _blocks(response: http.client.HTTPResponse, url: str, timeout_s: float) -> Iterator[bytes]:
    """Yields the data of a response as they arrive. Raises: RequestError: the connection broke or is stalled."""
    since, count = time.monotonic(), 0
    while True:
        try:
            block = response.read1(BLOCK_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise request_error(error, url) from None
        if not block:
            return
        yield block
        count += len(block)
        if (passed := time.monotonic() - since) >= timeout_s:
            if count < MIN_BYTES_PER_S * passed:
                raise RequestError(f"less than {MIN_BYTES_PER_S:,} bytes/s", retry=True)
            since, count = time.monotonic(), 0
