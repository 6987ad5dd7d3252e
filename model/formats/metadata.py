"""What an exported file says of the network behind it."""

from __future__ import annotations

import json
from typing import Any


def metadata_of(facts: dict[str, Any], spec: dict[str, Any]) -> dict[str, str]:
    """Texts by key: backbone, step (empty if not stated), digest, and the preprocessing spec as JSON.

    Args:
        facts: as ``load_backbone`` gives them.
        spec: of preprocessing, flat.
    """
    step = "" if facts["step"] is None else str(facts["step"])
    return {
        "backbone": facts["backbone"],
        "step": step,
        "digest": facts["digest"],
        "preprocessing": json.dumps(spec, sort_keys=True),
    }
