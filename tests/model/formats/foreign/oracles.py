"""Networks of other projects computed layer by layer from their state dicts, without our backbones.

From the papers and the projects' key lists: insightface's iresnet (Duta et al., ICPR 2020; MagFace's has another epsilon,
and takes BGR pixels in 0..1) and the transformers of insightface and CVLface.
"""

from __future__ import annotations

import torch
from torch.nn import functional


class Layers:
    """Layers by name, applied to feature maps or rows."""

    def __init__(self, state, prefix, epsilon):
        self.state, self.prefix, self.epsilon = state, prefix, epsilon

    def get(self, name):
        return self.state[self.prefix + name]

    def norm(self, name, x):
        values = [self.get(f"{name}.{leaf}") for leaf in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, weight, bias = (value.reshape(-1, *[1] * (x.dim() - 2)) for value in values)
        return (x - mean) / torch.sqrt(variance + self.epsilon) * weight + bias

    def conv(self, name, x, stride=1):
        weight = self.get(f"{name}.weight")
        return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def prelu(self, name, x):
        return torch.where(x > 0, x, x * self.get(f"{name}.weight")[:, None, None])


def iresnet(state, pixels, *, prefix="", epsilon=1e-5):
    layers, x = Layers(state, prefix, epsilon), (pixels - 0.5) / 0.5 if not prefix else pixels.flip(1)
    x = layers.prelu("prelu", layers.norm("bn1", layers.conv("conv1", x)))
    for stage in range(1, 5):
        unit = 0
        while f"{prefix}layer{stage}.{unit}.conv1.weight" in state:
            name, stride = f"layer{stage}.{unit}", 2 if unit == 0 else 1
            inner = layers.prelu(
                f"{name}.prelu", layers.norm(f"{name}.bn2", layers.conv(f"{name}.conv1", layers.norm(f"{name}.bn1", x)))
            )
            inner = layers.norm(f"{name}.bn3", layers.conv(f"{name}.conv2", inner, stride))
            x = inner + (
                layers.norm(f"{name}.downsample.1", layers.conv(f"{name}.downsample.0", x, stride)) if unit == 0 else x
            )
            unit += 1
    x = layers.norm("bn2", x).flatten(1)
    return layers.norm("features", x @ layers.get("fc.weight").T + layers.get("fc.bias"))


def magface(state, pixels):
    return iresnet(state, pixels, prefix="features.module.", epsilon=2e-5)


def vit(heads):
    def forward(state, pixels):
        patch = state["patch_embed.proj.weight"].shape[-1]
        x = functional.conv2d(
            (pixels - 0.5) / 0.5, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch
        )
        x = x.flatten(2).transpose(1, 2) + state["pos_embed"]
        block = 0
        while f"blocks.{block}.attn.qkv.weight" in state:
            x = _encoder_layer({key.removeprefix(f"blocks.{block}."): value for key, value in state.items()}, x, heads)
            block += 1
        x = _layer_norm(state, "norm", x).flatten(1)
        layers = Layers(state, "feature.", 2e-5)
        x = layers.norm("1", x @ state["feature.0.weight"].T)
        return layers.norm("3", x @ state["feature.2.weight"].T)

    return forward


def _layer_norm(state, name, x):
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]


def _encoder_layer(state, x, heads):
    queries, keys, values = (_layer_norm(state, "norm1", x) @ state["attn.qkv.weight"].T).chunk(3, -1)
    size, mixed = queries.shape[-1] // heads, []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        weights = (queries[..., part] @ keys[..., part].transpose(1, 2) / size**0.5).softmax(-1)
        mixed.append(weights @ values[..., part])
    x = x + torch.cat(mixed, -1) @ state["attn.proj.weight"].T + state["attn.proj.bias"]
    hidden = (_layer_norm(state, "norm2", x) @ state["mlp.fc1.weight"].T + state["mlp.fc1.bias"]).clamp(0, 6)
    return x + hidden @ state["mlp.fc2.weight"].T + state["mlp.fc2.bias"]


def _norm_keys(name, width):
    vectors = [(f"{name}.{leaf}", (width,)) for leaf in ("weight", "bias", "running_mean", "running_var")]
    return [*vectors, (f"{name}.num_batches_tracked", ())]


def iresnet_keys(units, prefix=""):
    keys, width = [("conv1.weight", (64, 3, 3, 3)), *_norm_keys("bn1", 64), ("prelu.weight", (64,))], 64
    for stage, (count, out) in enumerate(zip(units, (64, 128, 256, 512), strict=True), 1):
        for unit in range(count):
            name = f"layer{stage}.{unit}"
            keys += [*_norm_keys(f"{name}.bn1", width), (f"{name}.conv1.weight", (out, width, 3, 3))]
            keys += [*_norm_keys(f"{name}.bn2", out), (f"{name}.prelu.weight", (out,))]
            keys += [(f"{name}.conv2.weight", (out, out, 3, 3)), *_norm_keys(f"{name}.bn3", out)]
            if unit == 0:
                keys += [(f"{name}.downsample.0.weight", (out, width, 1, 1)), *_norm_keys(f"{name}.downsample.1", out)]
            width = out
    keys += [*_norm_keys("bn2", 512), ("fc.weight", (512, 512 * 49)), ("fc.bias", (512,)), *_norm_keys("features", 512)]
    return [(prefix + key, shape) for key, shape in keys]


def vit_keys(patch, width, depth, hidden):
    tokens = (112 // patch) ** 2
    keys = [("mask_token", (1, 1, width)), ("pos_embed", (1, tokens, width))]
    keys += [("patch_embed.proj.weight", (width, 3, patch, patch)), ("patch_embed.proj.bias", (width,))]
    for block in range(depth):
        for name, shape in (
            ("norm1", (width,)),
            ("attn.qkv", (3 * width, width)),
            ("attn.proj", (width, width)),
            ("norm2", (width,)),
            ("mlp.fc1", (hidden, width)),
            ("mlp.fc2", (width, hidden)),
        ):
            keys.append((f"blocks.{block}.{name}.weight", shape))
            if name != "attn.qkv":
                keys.append((f"blocks.{block}.{name}.bias", shape[:1]))
    keys += [("norm.weight", (width,)), ("norm.bias", (width,))]
    keys += [("feature.0.weight", (width, width * tokens)), *_norm_keys("feature.1", width)]
    return [*keys, ("feature.2.weight", (512, width)), *_norm_keys("feature.3", 512)]
