"""Demo data that the tests share."""

from __future__ import annotations

import pytest

from pipeline.demo.generate import write_demo_data
from tests.pipeline.demo.sizes import SIZES


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """All data sets, with the options ``SIZES``; read-only."""
    out = tmp_path_factory.mktemp("demo")
    write_demo_data(out, **SIZES)
    return out
