"""Digest of a network: equal for all files that hold the same network."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from pipeline.spec import Preprocessing


def backbone_digest(name: str, backbone: nn.Module, spec: Preprocessing | None) -> str:
    """BLAKE2b hash of a backbone's name, preprocessing spec and tensors (names, dtypes, shapes, values).

    Args:
        name: the backbone as text, such as ``spherenet20:pooling=true``.
        spec: None for a bare state dict, which states no spec.

    Returns:
        32 hex digits.
    """
    fields = None if spec is None else sorted(map(repr, spec.to_dict().items()))
    digest = hashlib.blake2b(repr((name, fields)).encode(), digest_size=16)
    for key, tensor in backbone.state_dict().items():
        digest.update(repr((key, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
