"""Errors of the benchmarks."""

from __future__ import annotations

from shards.errors import LrfrError


class ProtocolError(LrfrError):
    """A data set, results file or network that a protocol cannot score."""


class AbsentError(ProtocolError):
    """The data set was not found."""


class SearchError(LrfrError):
    """A table, result or calibration that a search cannot use."""


class ReportError(LrfrError):
    """A folder that cannot hold a report."""
