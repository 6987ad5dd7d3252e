"""Metadata that exported files carry about the network behind them."""

from __future__ import annotations

import json

from model.formats.network import LoadedNetwork


def metadata_of(network: LoadedNetwork) -> dict[str, str]:
    """Strings by key: backbone, step (empty if not stated), digest, and the preprocessing spec as JSON."""
    return {
        "backbone": network.name,
        "step": "" if network.step is None else str(network.step),
        "digest": network.digest,
        "preprocessing": json.dumps(network.spec.to_dict(), sort_keys=True),
    }
