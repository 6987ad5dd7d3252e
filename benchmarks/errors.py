"""What a benchmark refuses to judge."""

from __future__ import annotations

from shards.errors import LrfrError


class ProtocolError(LrfrError):
    """A data set that is not laid out as its protocol needs, or a checkpoint that it cannot judge. One line."""


class AbsentError(ProtocolError):
    """The data set is not there at all."""
