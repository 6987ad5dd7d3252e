"""A web server on this machine with faults that a test chooses."""

from __future__ import annotations

import threading

import pytest

from pipeline.fetch import download
from tests.pipeline.fetch.faulty_server import Server, remote


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "LRFR_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.001)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def file(server):
    """The description of the file that the server serves."""
    return remote(server.url)
