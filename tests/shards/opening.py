"""What a fresh process of ``test_index`` does, without pytest and PyTorch, so that it starts sooner."""

from __future__ import annotations

import sys

from shards.index import ShardIndex
from tools.costs import peak_mb


def memory_of_opening(root):
    before = peak_mb()
    index = ShardIndex(root)
    return len(index), peak_mb() - before, "pandas" in sys.modules
