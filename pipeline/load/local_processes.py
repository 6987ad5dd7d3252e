"""The processes of a run on this machine."""

from __future__ import annotations

import os
import re


def local_processes() -> int:
    """Their number, as ``torchrun`` states it; 1 if nothing states it."""
    stated = os.environ.get("LOCAL_WORLD_SIZE", "")
    return int(stated) if re.fullmatch(r"[1-9]\d{0,5}", stated, re.ASCII) else 1
