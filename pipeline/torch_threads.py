"""How many threads PyTorch computes with: one number for each thread, and one for threads to come."""

from __future__ import annotations

import torch

from shards.process_setting import ProcessSetting


def _use_one_thread() -> None:
    torch.get_num_threads()  # or the first operation of this thread would take over the number of the process
    torch.set_num_threads(1)


one_thread = ProcessSetting(torch.get_num_threads, _use_one_thread, torch.set_num_threads, of_threads=True)
"""PyTorch computes in the thread of the block alone."""
