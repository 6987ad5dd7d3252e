"""The detector's file, if the environment names it."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.landmarks.model import FILE_NAME

LANDMARKER = Path(os.environ.get("LRFR_LANDMARKER", Path(os.environ.get("LRFR_REAL_DATA", "."), "models", FILE_NAME)))
