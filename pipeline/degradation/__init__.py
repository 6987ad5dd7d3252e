"""Realistic degradation: what a camera, a codec and an editor do to a small face."""
