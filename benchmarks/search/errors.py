"""Errors of searches and calibrations."""

from __future__ import annotations

from shards.errors import LrfrError


class SearchError(LrfrError):
    """A table, result or calibration that a search cannot use."""
