"""Out of memory: one line that says what to lower."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch

from model.errors import OutOfMemoryError, explained_memory, last_line, one_line
from model.formats.checkpoint import checkpoints
from model.formats.network import read_tensors
from model.training.config import TrainConfig
from tests.model.training.runs import config, run_training

HUGE = 1 << 60


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8 GiB"
            ),
            "out of GPU memory (for 2.50 GiB): lower it",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out of GPU memory: lower it"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), "out of GPU memory: lower it"),
        (RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2)"), "out of GPU memory: lower it"),
        (MemoryError(), "out of memory: lower it"),
        (RuntimeError("std::bad_alloc"), "out of memory: lower it"),
    ],
)
def test_failed_allocations_are_one_line(error, line):
    with pytest.raises(OutOfMemoryError) as told, explained_memory("lower it"):
        raise error
    assert str(told.value) == line
    assert told.value.__cause__ is error


def test_real_allocations_of_pytorch_and_numpy():
    for allocate in (lambda: torch.empty(HUGE, dtype=torch.uint8), lambda: np.empty(HUGE, np.uint8)):
        with (
            pytest.raises(OutOfMemoryError, match=r"out of memory \(for [\d.]+ \w+\): lower it"),
            explained_memory("lower it"),
        ):
            allocate()


def test_other_errors_pass():
    for error in (RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("x")):
        with pytest.raises(type(error)) as passed, explained_memory("lower it"):
            raise error
        assert passed.value is error


CUDA = """CUDA error: an illegal memory access was encountered
Search for `cudaErrorIllegalAddress' in https://docs.nvidia.com/cuda/cuda-runtime-api/ for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""
NCCL = """NCCL error in: /pytorch/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:3690, unhandled system error
ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.
Last error:
"""
COMPILER = """backend='inductor' raised:
RuntimeError: Cannot find a working triton installation.

Set TORCHDYNAMO_VERBOSE=1 for the internal stack trace. For even more developer context, set TORCH_LOGS="+dynamo"
"""
DALI = """Critical error in pipeline:
encountered:

CUDA runtime API error cudaErrorInvalidDevice (101)
Current pipeline object is no longer valid.
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (CUDA, "CUDA error: an illegal memory access was encountered"),
        (NCCL, "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error."),
        (f"{NCCL}No space left on device\n", "No space left on device"),
        (f"{NCCL}refused\n[rank0]:[W1130 10:00:00.123 ProcessGroupNCCL.cpp:1538] Warning: not destroyed", "refused"),
        (COMPILER, "RuntimeError: Cannot find a working triton installation."),
        (DALI, "CUDA runtime API error cudaErrorInvalidDevice (101)"),
        ("\n \n", ""),
    ],
    ids=["CUDA", "NCCL", "NCCL, with a reason", "NCCL, then a warning", "compiler", "DALI", "nothing"],
)
def test_the_line_that_says_why_and_not_the_advice_below_it(text, line):
    assert last_line(text) == line
    assert one_line(RuntimeError(text)) == (line or "RuntimeError")


def test_training_says_what_to_lower(tmp_path):
    with pytest.raises(OutOfMemoryError) as error:
        run_training(tmp_path, config(), at_batch={2: lambda: torch.empty(HUGE, dtype=torch.uint8)})
    assert str(error.value).endswith(
        "lower --batch-size (3 identities with 4 images each); use fewer --views; raise --accumulate (it is 1);"
        " use --activation-checkpointing; use --precision bf16; with several processes and many identities, use --shard-head"
    )
    assert TrainConfig(
        views="128", precision="bf16", shard_head=True, accumulate=4, activation_checkpointing=True
    ).less_memory == ("lower --batch-size (128 identities with 1 image each); raise --accumulate (it is 4)")
    compiled = TrainConfig(views="128", precision="bf16", shard_head=True, batch_size=4, accumulate=4, compile=True)
    assert compiled.less_memory == "lower --batch-size (4 identities with 1 image each)"


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_shortage_while_a_file_is_read_is_not_told_as_damage(name, tmp_path, monkeypatch):
    state, path = {"w": torch.zeros(3)}, tmp_path / name
    if name.endswith(".pt"):
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)

    def load(*_, **__):
        torch.empty(HUGE, dtype=torch.uint8)

    monkeypatch.setattr(torch, "load", load)
    monkeypatch.setattr(safetensors, "safe_open", load)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory .*: end other programs, or use a machine with more$"):
        read_tensors(path)


def test_a_shortage_while_a_run_is_restored_is_not_told_as_damage(tmp_path, monkeypatch):
    done, _ = run_training(tmp_path, config(steps=1))
    assert done == 1
    monkeypatch.setattr(torch.optim.SGD, "load_state_dict", lambda *_: torch.empty(HUGE, dtype=torch.uint8))
    with pytest.raises(OutOfMemoryError, match=r": end other programs, or use a machine with more$"):
        run_training(tmp_path, config(steps=2), resume=checkpoints(tmp_path)[-1])
