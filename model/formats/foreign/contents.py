"""State dicts in what a file holds: bare, among other things, or as a whole pickled module."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

Tensors = Mapping[str, torch.Tensor]
_MAX_DEPTH = 6  # of dicts in dicts, and of modules in modules twice that
_MAX_DICTS = 10_000


class StateDict(NamedTuple):
    """Tensors by name, and where in the file they lie: names of dicts, empty for the file itself."""

    where: tuple[str, ...]
    tensors: dict[str, torch.Tensor]


def state_dicts(content: object) -> Iterator[StateDict]:
    """All dicts with tensors, from the outside in. A pickled module, of which only tensors were read, is one of them."""
    left: deque[tuple[tuple[str, ...], object]] = deque([((), content)])
    for _ in range(_MAX_DICTS):
        if not left:
            return
        where, value = left.popleft()
        if not isinstance(value, dict):
            continue
        if _is_module(value):
            if tensors := dict(_module_tensors(value)):
                yield StateDict(where, tensors)
            continue
        items = list(dict.items(value))  # the file may have given the dict a field ``items``
        tensors = {name: one for name, one in items if isinstance(name, str) and isinstance(one, torch.Tensor)}
        if tensors:
            yield StateDict(where, tensors)
        if len(where) < _MAX_DEPTH:
            left += [((*where, str(name)), one) for name, one in items if isinstance(one, dict)]


def _is_module(value: object) -> bool:
    """Whether ``value`` is what ``read_checkpoint`` makes of a pickled ``nn.Module``."""
    fields: dict[str, Any] = getattr(value, "__dict__", {})
    return all(isinstance(fields.get(name), dict) for name in ("_parameters", "_buffers", "_modules"))


def _module_tensors(module: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers under the names of the module's state dict."""
    left: list[tuple[str, object]] = [("", module)]
    for _ in range(_MAX_DICTS):
        if not left:
            return
        prefix, current = left.pop()
        fields = vars(current)
        unsaved = fields.get("_non_persistent_buffers_set", set())
        for name, tensor in (*dict.items(fields["_parameters"]), *dict.items(fields["_buffers"])):
            if isinstance(tensor, torch.Tensor) and not (isinstance(unsaved, set) and name in unsaved):
                yield f"{prefix}{name}", tensor
        if prefix.count(".") < 2 * _MAX_DEPTH:
            left += [(f"{prefix}{name}.", child) for name, child in dict.items(fields["_modules"]) if _is_module(child)]
