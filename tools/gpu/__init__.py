"""The parts of ``tools/gpu_check.py``: what a GPU must compute as a CPU does, and how fast."""
