"""Pixels to batches: sources, alignment, the build, sampling, decoding, degradation, generated faces."""
