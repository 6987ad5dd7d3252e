"""The base class of expected errors, and the errors of shard sets."""

from __future__ import annotations


class LrfrError(Exception):
    """An expected error. Its message is one line: where, what was found, what was expected, what to do next."""


class ShardError(LrfrError):
    """A shard set that cannot be written or read, or is damaged."""


class LockedError(LrfrError):
    """A folder that another process has locked."""
