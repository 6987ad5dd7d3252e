"""Object stores by URL, such as ``s3://bucket/set``: listing, whole objects in and out, checksums and retries.

The protocols are obstore's. A file is written on this machine first, by the code that writes every file, and uploaded
when it is finished: an object appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from shards.attempts import PassingError, attempt
from shards.connection import StoreError as StoreError  # other modules import it from here
from shards.connection import connected
from shards.files import BLOCK_BYTES, open_regular, sha256_of, whole_file

SCHEMES = ("s3", "gs")
PART_BYTES = 8 << 20  # of a multipart upload; 10,000 of them make an object of 80 GB
UPLOADED_PARTS = 4  # parts of one object in flight
_STORE_URL = re.compile(rf"(?:{'|'.join(SCHEMES)})://", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_DIGEST_NOTE = "sha256"
T = TypeVar("T")


class Entry(NamedTuple):
    """An object: its size in bytes, and the store's tag of its content."""

    size: int
    etag: str


def is_url(value: str | os.PathLike[str]) -> bool:
    """Returns True for the URL of an object store."""
    return bool(_STORE_URL.match(os.fspath(value)))


class Store:
    """The objects below a URL. Picklable; it connects when it is used, and may be used by several threads.

    Attributes:
        url: without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        """Raises: StoreError: no URL of a store with the name of a bucket."""
        scheme, _, rest = url.partition("://")
        parts = [part for part in rest.split("/") if part]
        if not is_url(url) or not parts or rest.startswith("/"):
            raise StoreError(f"{url}: expected a URL such as s3://bucket/folder, of {' or '.join(SCHEMES)}")
        if any(part in (".", "..") for part in parts) or not rest.isprintable() or set(rest) & set("?#"):
            raise StoreError(
                f"{url}: a URL with ?, #, control characters or a folder . or .. is not taken; choose another one"
            )
        if not _BUCKET.fullmatch(parts[0]):
            raise StoreError(f"{url}: {parts[0]!r} is not the name of a bucket: letters, digits, dots, - and _")
        self.url = f"{scheme.lower()}://{'/'.join(parts)}"
        self._opened: Any = None
        self._tags_are_opaque = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.url,)

    def __str__(self) -> str:
        return self.url

    @property
    def folder_name(self) -> str:
        """A name for a folder of this machine, which no other URL has."""
        tail = re.sub(r"[^A-Za-z0-9._-]", "-", self.url.rpartition("/")[2])[:60]
        return f"{tail}-{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"

    def list(self) -> dict[str, Entry]:
        """Lists all objects by name, relative to the URL, with one request for each 1,000.

        Names are relative paths without ``..``; obstore refuses others.
        """

        def work() -> dict[str, Entry]:
            import obstore

            chunks = obstore.list(self._store())
            return {entry["path"]: Entry(entry["size"], _tag(entry["e_tag"])) for chunk in chunks for entry in chunk}

        return self._tried("", work)

    def upload(self, path: Path, name: str, notes: Mapping[str, str] | None = None) -> str:
        """Stores a file, in parts if it is large, and compares what the store has with what it should have.

        The store checks the SHA-256 of each part. Its tag is compared with the expected MD5; if the tags of a store are not
        MD5, its first object is read back.

        Args:
            notes: metadata of the object; its SHA-256 is added.

        Returns:
            The tag of the object.

        Raises:
            StoreError: it cannot be stored.
            OSError: the file cannot be read.
        """
        expected, digest = _expected_tag(path), sha256_of(path)

        def work() -> str:
            import obstore

            found = _tag(
                obstore.put(
                    self._store(),
                    name,
                    path,
                    attributes={**(notes or {}), _DIGEST_NOTE: digest},
                    chunk_size=PART_BYTES,
                    max_concurrency=UPLOADED_PARTS,
                )["e_tag"]
            )
            if found != expected and not self._tags_are_opaque:
                if self._digest(name) != digest:
                    raise PassingError("its content in the store differs from the file's")
                self._tags_are_opaque = True
            return found

        return self._tried(name, work)

    def fetch(self, name: str, path: Path, facts: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Copies an object to a file, which appears whole or not at all, and compares its SHA-256 with that noted.

        Args:
            facts: its ``size`` and ``sha256``, if they are known from elsewhere.

        Returns:
            The notes of the object.

        Raises:
            StoreError: there is no such object, or it cannot be read or does not match the facts.
            OSError: the file cannot be written.
        """

        def work() -> dict[str, str]:
            with whole_file(path) as temporary, open(temporary, "wb") as stream:
                return self._receive(name, stream, facts)

        return self._tried(name, work)

    def fetch_into(
        self, name: str, stream: BinaryIO, facts: Mapping[str, Any], on_block: Callable[[], None] = lambda: None
    ) -> None:
        """Copies an object into an open file, from its start; see ``fetch``.

        Args:
            on_block: called after each block; what it raises ends the copy.
        """

        def work() -> None:
            stream.seek(0)
            self._receive(name, stream, facts, on_block)

        self._tried(name, work)

    def _receive(
        self,
        name: str,
        stream: BinaryIO,
        facts: Mapping[str, Any] | None,
        on_block: Callable[[], None] = lambda: None,
    ) -> dict[str, str]:
        result, size, digest = self._get(name), 0, hashlib.sha256()
        stated = result.meta["size"]
        if facts is not None and stated != facts["size"]:
            raise PassingError(f"has {stated:,} bytes, expected {facts['size']:,}")
        for block in result.stream(min_chunk_size=BLOCK_BYTES):
            stream.write(block)
            digest.update(block)
            size += len(block)
            on_block()
        if size != stated:
            raise PassingError(f"{size:,} of {stated:,} bytes arrived")
        notes = {str(key): str(value) for key, value in result.attributes.items()}
        known = {notes.get(_DIGEST_NOTE), facts and facts["sha256"]} - {None}
        if known - {digest.hexdigest()}:
            raise PassingError("its content is not what was stored (SHA-256 does not match)")
        return notes

    def read(self, name: str, max_bytes: int | None = None) -> tuple[int, bytes | None] | None:
        """Returns size and content of an object, without content if it has more than ``max_bytes``; None if there is none.

        Raises:
            StoreError: it cannot be read.
        """

        def work() -> tuple[int, bytes | None] | None:
            if (result := self._found(name)) is None:
                return None
            size = result.meta["size"]
            return size, None if max_bytes is not None and size > max_bytes else bytes(result.bytes())

        return self._tried(name, work)

    def start(self, name: str, count: int) -> bytes | None:
        """Returns the first bytes of an object; None if there is none.

        Raises:
            StoreError: it cannot be read.
        """

        def work() -> bytes | None:
            if (result := self._found(name)) is None:
                return None
            return bytes(next(iter(result.stream(min_chunk_size=count)), b""))[:count]

        return self._tried(name, work)

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; absent ones are no error."""
        names = list(names)

        def work() -> None:
            import obstore

            obstore.delete(self._store(), names)

        if names:
            self._tried("", work)

    def is_intact(self, name: str, entry: Entry | None, facts: Mapping[str, Any], tag: str | None) -> bool:
        """Returns True if a listed object has the content that was stored.

        Args:
            entry: of the listing; None if the object is not there.
            facts: the ``size`` and ``sha256`` that it should have.
            tag: that it had when it was stored; the content of an object with another tag is read and compared.
        """
        if entry is None or entry.size != facts["size"]:
            return False
        return entry.etag == tag or self._tried(name, lambda: self._digest(name)) == facts["sha256"]

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        for block in self._get(name).stream(min_chunk_size=BLOCK_BYTES):
            digest.update(block)
        return digest.hexdigest()

    def _get(self, name: str) -> Any:
        import obstore

        return obstore.get(self._store(), name)

    def _found(self, name: str) -> Any:
        """An object; None if there is none in the bucket."""
        try:
            return self._get(name)
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise
            return None

    def _store(self) -> Any:
        if self._opened is None:
            self._opened = connected(self.url)
        return self._opened

    def _tried(self, name: str, work: Callable[[], T]) -> T:
        return attempt(self.url, name, work)


@contextlib.contextmanager
def naming_store(folder: Path, url: str, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of these ``kinds`` name the objects below a URL in place of their copies in a folder of this machine."""
    try:
        yield
    except kinds as error:
        raise type(error)(str(error).replace(str(folder), url)) from None


def _tag(value: str | None) -> str:
    return (value or "").strip('"')


def _expected_tag(path: Path) -> str:
    """The tag that S3 gives a file: its MD5, or the MD5 of those of its parts, with their number."""
    with open_regular(path) as stream:
        parts = [hashlib.md5(block, usedforsecurity=False) for block in iter(lambda: stream.read(PART_BYTES), b"")]
    if len(parts) < 2:
        return (parts or [hashlib.md5(usedforsecurity=False)])[0].hexdigest()
    joined = hashlib.md5(b"".join(part.digest() for part in parts), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(parts)}"
