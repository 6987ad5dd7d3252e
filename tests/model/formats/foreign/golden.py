"""Key lists, weights, inputs and outputs of the networks in tests/golden/networks; see its README."""

from __future__ import annotations

import gzip
import json

import numpy as np
import torch

from tests.processes import REPOSITORY

FOLDER = REPOSITORY / "tests" / "golden" / "networks"
NAMES = sorted(path.name.removesuffix(".npz") for path in FOLDER.glob("*.npz"))


def keys_of(name):
    """Names and shapes of the tensors, in the order of that project's state dict."""
    with gzip.open(FOLDER / f"{name}.keys.json.gz") as stream:
        return [(key, tuple(shape)) for key, shape in json.load(stream)]


def meta_state(keys):
    """Tensors without values."""
    return {
        key: torch.empty(
            shape, device="meta", dtype=torch.int64 if key.endswith("num_batches_tracked") else torch.float32
        )
        for key, shape in keys
    }


def seeded_state(keys, seed, gain=0.5):
    """Weights by the rule of the README."""
    names, state = {key for key, _ in keys}, {}
    for number, (key, shape) in enumerate(keys):
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
            continue
        z = np.random.default_rng([seed, number]).standard_normal(shape, dtype=np.float64).astype(np.float32)
        layer = key.rpartition(".")[0]
        if key.endswith("running_var"):
            z = 0.5 + np.abs(z)
        elif key.endswith("running_mean"):
            z *= 0.1
        elif len(shape) > 1:
            z *= np.sqrt(2 / np.prod(shape[1:])) * gain
        elif key.endswith("bias"):
            z *= 0.05
        else:
            z = (1 if {f"{layer}.bias", f"{layer}.running_mean"} & names else 0.25) + 0.05 * z
        state[key] = torch.from_numpy(np.asarray(z, np.float32))
    return state


def golden(name):
    """The state dict, the input (N, S, S, 3) uint8 RGB, and the embeddings before any normalisation."""
    arrays = np.load(FOLDER / f"{name}.npz", allow_pickle=False)
    facenet = name.startswith("facenet")
    size = 160 if facenet else 128 if name.startswith("reference") else 112
    seed = arrays["input_seed"]
    images = np.random.default_rng(seed).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    norm = arrays.get("norm", np.float32(1))
    return seeded_state(keys_of(name), int(seed[1]), gain=1.0 if facenet else 0.5), images, arrays["embedding"] * norm
