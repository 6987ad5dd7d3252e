"""The index of a small set."""

from __future__ import annotations

import pytest

from shards.index import ShardIndex


@pytest.fixture
def index(shard_set):
    return ShardIndex(shard_set)
