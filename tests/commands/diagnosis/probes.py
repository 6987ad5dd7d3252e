"""Probes of libraries that say what a test wants."""

from __future__ import annotations

from commands.diagnosis.libraries import ProbeError

HEALTHY = {
    "torch": {"version": "2.13.0", "cuda": None, "threads": 2, "gpus": []},
    "dali": {"version": "2.4.0", "cuda": "12986", "cpu": [16, 16, 3]},
    "cv2": {"version": "5.0.0", "decodes": True, "file": "cv2.py"},
    "others": {},
    "litert": {},
}


class FakeProbes:
    """Facts of ``HEALTHY``, changed by keyword; an exception is raised."""

    def __init__(self, **changes):
        self._facts = {**HEALTHY, **changes}

    def facts(self, name):
        found = self._facts[name]
        if isinstance(found, str):
            raise ProbeError(found)
        return found


def of(findings, level):
    """The texts of the findings of a level."""
    return [finding.text for finding in findings if finding.level.value == level]
