"""Locks and fsync, also of file systems that lack them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from shards.errors import LockedError
from shards.messages import print_stderr

# errors of flock and fsync on file systems without them: Lustre, FUSE, CIFS, some NFS
_LACKING = {errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EISDIR}


def sync_folder(folder: Path) -> bool:
    """Makes renames inside ``folder`` durable; returns False where the file system cannot."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may be written, but not listed
        return False
    try:
        return sync(handle)
    except OSError as error:
        error.filename = str(folder)
        raise
    finally:
        os.close(handle)


def sync(handle: int) -> bool:
    """Makes an open file or folder durable; returns False where the file system cannot."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _LACKING:
            return False
        raise
    return True


def try_lock(handle: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Locks an open file or folder; returns False if another process has locked it, None if there are no locks."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # EACCES: CIFS
            return False
        if error.errno in _LACKING:
            return None
        raise
    return True


@contextlib.contextmanager
def locked(folder: Path, activity: str, *, shared: bool = False) -> Iterator[bool]:
    """Locks ``folder`` for one process; the lock ends with the process. Yields False if there are no locks.

    Where the file system has no locks, or does not sync folders, a line on stderr says so, and the block runs.

    Args:
        activity: what the lock is for, such as ``training``; part of the messages.
        shared: others may share the lock, but none may have it alone; without locks, no line says so.

    Raises:
        LockedError: another process has locked it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock = try_lock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        if lock is False:
            raise LockedError(
                f"{folder}: another process is {activity} here; wait for it to end, or choose another --out"
            )
        lacks = [] if lock or shared else [f"has no file locks, make sure that no other process is {activity} here"]
        lacks += [] if sync_folder(folder) else ["cannot sync a folder, a power failure may undo the last renames"]
        if lacks:
            print_stderr(f"{folder}: its file system {'; and '.join(lacks)}")
        yield bool(lock)
    finally:
        os.close(handle)
