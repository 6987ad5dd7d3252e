"""Small networks for most tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def _narrow(narrow):
    pass
