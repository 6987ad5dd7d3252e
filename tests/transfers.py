"""What a GPU would be sent or asked: by running work on PyTorch's device ``meta``, which takes the place of the GPU.

A meta tensor has no values: whatever asks for one, such as ``item``, fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_FROM_NUMBERS = (torch.tensor, torch.as_tensor)


class _Operations(TorchDispatchMode):
    """Notes what has tensors on several devices."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        devices = {one.device for one in tree_leaves((args, kwargs, out)) if isinstance(one, torch.Tensor)}
        if len(devices) > 1:
            self._found.append(str(func))
        return out


class _Calls(TorchFunctionMode):
    """Notes the tensors that are made on the device from numbers of the host; no operation shows them."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if func in _FROM_NUMBERS and not isinstance(args[0], torch.Tensor) and out.device.type == "meta":
            self._found.append(func.__name__)
        return out


@contextlib.contextmanager
def transfers() -> Iterator[list[str]]:
    """The copies between host and device in the block: each makes the host wait, unless it is from pinned memory."""
    found: list[str] = []
    with _Operations(found), _Calls(found):
        yield found
