"""The base of every error that a user can cause."""

from __future__ import annotations


class LrfrError(Exception):
    """An expected failure. Its message is one line: what was found, what was expected, where, and what to do next."""


class ShardError(LrfrError):
    """A shard set that cannot be written, read or trusted."""
