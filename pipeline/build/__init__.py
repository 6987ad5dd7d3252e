"""build-shards: plan (label and shard of every row) -> one worker task per shard -> index and manifest."""

from pipeline.build.builder import build, build_part, finish_build
from pipeline.build.options import BuildOptions, options_for
from pipeline.build.parts import Part

__all__ = ["BuildOptions", "Part", "build", "build_part", "finish_build", "options_for"]
