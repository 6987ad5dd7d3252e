"""Folders of CVLface: where their weights are, and the order of colours that their configuration states."""

from __future__ import annotations

import json
import re
from pathlib import Path

_WEIGHTS = ("model.safetensors", "pretrained_model/model.pt", "model.pt")
_CONFIGS = ("config.json", "pretrained_model/model.yaml", "model.yaml")
_MAX_BYTES = 1 << 16  # of a configuration


def cvlface_weights(folder: Path) -> list[Path]:
    """Files with the weights of a CVLface folder, the preferred one first; none if it is another kind of folder."""
    if stated_color(folder) is None:
        return []
    return [folder / name for name in _WEIGHTS if (folder / name).is_file()]


def stated_color(folder: Path) -> str | None:
    """``RGB`` or ``BGR`` as CVLface's configuration in ``folder`` states it; None if there is no such statement."""
    for name in _CONFIGS:
        path = folder / name
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        color = _of_json(text) if path.suffix == ".json" else _of_yaml(text)
        if color in ("RGB", "BGR"):
            return color
    return None


def _of_json(text: str) -> object:
    try:
        content = json.loads(text)
        return content["conf"]["color_space"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _of_yaml(text: str) -> object:
    """A flat file of ``key: value`` lines."""
    found = re.search(r"""^color_space\s*:\s*['"]?(\w+)['"]?\s*$""", text, re.MULTILINE)
    return found and found[1]
