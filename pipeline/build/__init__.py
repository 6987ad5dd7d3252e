"""build-shards: plan (label and shard of every row) -> one worker task per shard -> index and manifest."""

from pipeline.build.builder import build
from pipeline.build.options import BuildOptions, options_for

__all__ = ["BuildOptions", "build", "options_for"]
