"""How a rank notices that others end, and what the ranks without a connection to a lost one report."""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import socket
import subprocess
import sys
import threading

import pytest

from model.training import peers
from tests.processes import PATIENCE_S, REPOSITORY


class Ranks:
    """The watches of three ranks in this process."""

    def __init__(self):
        told = queue.Queue()
        self.contexts = {rank: peers.watched(rank, 3, lambda: told.get(timeout=PATIENCE_S)) for rank in (1, 2)}
        self.contexts[0] = peers.watched(0, 3, lambda value: [told.put(value) for _ in range(2)])
        with concurrent.futures.ThreadPoolExecutor() as pool:
            opened = {rank: pool.submit(context.__enter__) for rank, context in self.contexts.items()}
        self.watches = {rank: one.result() for rank, one in opened.items()}

    def end(self, rank, error=None):
        with contextlib.suppress(ValueError):
            self.contexts.pop(rank).__exit__(error and type(error), error, None)


@pytest.fixture
def ranks(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "9")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    ranks = Ranks()
    yield ranks
    for rank in list(ranks.contexts):
        ranks.end(rank)


def test_ranks_that_are_done_are_not_lost(ranks):
    for rank in (2, 0):
        ranks.end(rank)
    assert [one.loss(0.05) for one in ranks.watches.values()] == ["", "", ""]


def test_all_ranks_learn_which_one_is_lost(ranks):
    ranks.end(2, ValueError("disk"))
    line = f"rank 2 ({socket.gethostname()}) has ended; its own message, if it left one, says why"
    assert [ranks.watches[rank].loss(PATIENCE_S) for rank in (0, 1)] == [line, line]


ENDED = """
import os, signal, socket, sys, threading, time
from model.training import peers
peers.GRACE_S = 0.1
here, there = socket.socketpair()
one = peers.Peers(3, {"rank 0 (a)": here})
if sys.argv[1] == "leaves":
    one.leave()
there.close()
time.sleep(0.4 if sys.argv[1] == "leaves" else 600)
"""


@pytest.mark.parametrize(("how", "code"), [("waits", 1), ("leaves", 0)])
def test_a_process_that_waits_for_a_lost_rank_is_ended(how, code):
    words = [sys.executable, "-c", ENDED, how]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    line = "Error: rank 3: rank 0 (a) has ended; its own message, if it left one, says why\n"
    assert (done.returncode, done.stderr) == (code, line if code else "")


def test_connections_of_other_programs_are_rejected(monkeypatch):
    with peers._listening() as server:
        port = server.getsockname()[1]
        stranger = socket.create_connection(("localhost", port))
        stranger.sendall(b"GET / HTTP/1.1")
        found = {}
        thread = threading.Thread(target=lambda: found.update(peers._connect(1, ["localhost"], port, "token")))
        thread.start()
        accepted = peers._accept(server, 2, "token")
        thread.join()
        assert list(accepted) == [f"rank 1 ({socket.gethostname()})"]
        assert list(found) == ["rank 0 (localhost)"]
        assert stranger.recv(9) == b""
        for one in (stranger, *accepted.values(), *found.values()):
            one.close()


def test_other_connections_do_not_delay_the_processes():
    with peers._listening() as server, contextlib.ExitStack() as stack:
        port = server.getsockname()[1]
        strangers = [socket.create_connection(("localhost", port)) for _ in range(peers._MAX_STRANGERS + 20)]
        for stranger in strangers:
            stack.enter_context(stranger)
        strangers[-1].setblocking(False)
        strangers[-1].send(b"x" * 10_000_000)
        strangers.pop(3).close()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            found = pool.submit(peers._connect, 1, ["localhost"], port, "token")
            accepted = peers._accept(server, 2, "token")
            assert list(found.result()) == ["rank 0 (localhost)"]
        assert list(accepted) == [f"rank 1 ({socket.gethostname()})"]
        for stranger in strangers:
            stranger.settimeout(PATIENCE_S)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(9) == b""
        for one in (*accepted.values(), *found.result().values()):
            one.close()


def test_endless_connections_of_other_programs_end_the_wait(monkeypatch):
    monkeypatch.setattr(peers, "_CONNECT_S", 0.3)
    with peers._listening() as server:
        port, done = server.getsockname()[1], threading.Event()

        def come():
            while not done.is_set():
                with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 0.1) as stranger:
                    stranger.sendall(b"hello")

        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(come)
            try:
                with pytest.raises(TimeoutError, match="0 of 1 other ranks have connected in 0 s"):
                    peers._accept(server, 2, "token")
            finally:
                done.set()
