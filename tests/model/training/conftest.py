"""Small networks for most tests."""

from __future__ import annotations

import pytest

from model.backbones import spherenet
from tests.networks import NARROW


@pytest.fixture(autouse=True, scope="module")
def _narrow():
    """As ``narrow``, for fixtures of a module, too. A module in need of whole networks has a fixture of this name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spherenet, "WIDTHS", NARROW)
        yield
