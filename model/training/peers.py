"""Ends this process when another one of the run is lost, whatever it waits for.

Collectives wait for hours, because rank 0 evaluates meanwhile. Gloo notices the end of a process, but nothing notices
that a machine has lost power or network, and ``torchrun`` does not notify the processes. Therefore every rank keeps a
connection to rank 0, whose other end the kernel probes regularly. A process whose ``torchrun`` was killed would go on,
on a GPU that the next run needs: it gets SIGTERM, upon which training saves a checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from shards.messages import print_stderr

LOST_S = 60  # a machine that does not answer for so long is lost
GRACE_S = 60.0  # for this process to end by itself, with its own message
_CONNECT_S = 60.0
_PROBE_S = 5
_DONE = b"\0"
_MAX_BYTES = 1000
_MAX_STRANGERS = 100  # connections, beyond those of all ranks, that have not said yet whose they are


class Peers:
    """Watches the connections of rank 0 to all others, or those of another rank to rank 0, until it is closed.

    Args:
        rank: of this process.
        connections: by the name of the rank at the other end.
    """

    def __init__(self, rank: int, connections: dict[str, socket.socket]) -> None:
        self._rank, self._connections = rank, connections
        self._loss = ""
        self._lost, self._left = threading.Event(), threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="peers")
        self._thread.start()

    def loss(self, wait_s: float = 2.0) -> str:
        """Which rank is lost, in words; empty if none is.

        Args:
            wait_s: the error of a collective may come before this thread knows.
        """
        self._lost.wait(wait_s)
        return self._loss

    def leave(self) -> None:
        """Says that this process waits for no other one any more, so that it is not ended."""
        self._left.set()

    def close(self, *, done: bool) -> None:
        """Ends the watch.

        Args:
            done: this process ends as planned; otherwise the other ranks take it for lost.
        """
        self.leave()
        self._wake.send(b"x")
        self._thread.join()
        for connection in self._connections.values():
            if done:
                with contextlib.suppress(OSError):
                    connection.send(_DONE)
            connection.close()
        self._wake.close()
        self._woken.close()

    def _watch(self) -> None:
        self._loss = self._wait_for_loss()
        if not self._loss:
            return
        for connection in self._connections.values():  # the others have no connection to the rank that is lost
            with contextlib.suppress(OSError):
                connection.send(self._loss.encode())
        self._lost.set()
        if not self._left.wait(GRACE_S):
            print_stderr(f"Error: rank {self._rank}: {self._loss}")
            os._exit(1)

    def _wait_for_loss(self) -> str:
        """What ``loss`` says; empty when the watch is closed."""
        with selectors.DefaultSelector() as selector, _torchrun() as launcher:
            selector.register(self._woken, selectors.EVENT_READ)
            for name, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, name)
            if launcher is not None:
                selector.register(launcher, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        return ""
                    if isinstance(key.fileobj, socket.socket):
                        if loss := _read(key.fileobj, key.data):
                            return loss
                    else:
                        os.kill(os.getpid(), signal.SIGTERM)
                    selector.unregister(key.fileobj)


@contextlib.contextmanager
def _torchrun() -> Iterator[int | None]:
    """A descriptor that becomes readable when the ``torchrun`` of this process ends; None if there is none."""
    descriptor = None
    if "TORCHELASTIC_RUN_ID" in os.environ:
        with contextlib.suppress(OSError):  # not permitted, or the parent is in another container
            descriptor = os.pidfd_open(os.getppid())
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _read(connection: socket.socket, name: str) -> str:
    """Which rank is lost, if the one at the other end is, or says so; empty if it has ended as planned."""
    try:
        said = connection.recv(_MAX_BYTES)
    except ConnectionError:
        said = b""
    except OSError:  # the kernel has had no answer
        return f"{name} has not answered for {LOST_S} seconds: its machine is lost, or the network between"
    if said.startswith(_DONE):
        return ""
    return said.decode(errors="replace") or f"{name} has ended; its own message, if it left one, says why"


@contextlib.contextmanager
def watched(rank: int, size: int, broadcast: Callable[..., Any]) -> Iterator[Peers]:
    """Watches the other ranks in the block. A collective.

    Args:
        broadcast: from a value of rank 0, which other ranks leave out, to that value on every rank; a collective.

    Raises:
        OSError: no connection.
    """
    if rank == 0:
        with _listening() as server:
            token = secrets.token_hex(16)
            broadcast((_addresses(), server.getsockname()[1], token))
            connections = _accept(server, size, token)
    else:
        connections = _connect(rank, *broadcast())
    for connection in connections.values():
        _keep_alive(connection)
    peers = Peers(rank, connections)
    done = False
    try:
        yield peers
        done = True
    except SystemExit:  # all ranks have been interrupted
        done = True
        raise
    finally:
        peers.close(done=done)


def _listening() -> socket.socket:
    """A server at any free port of all addresses."""
    with contextlib.suppress(OSError):  # no IPv6
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", 0), backlog=1024)


def _addresses() -> list[str]:
    """Where other machines may reach this one, without duplicates.

    The first is right unless ``torchrun`` has restarted the run with another rank 0.
    """
    master = os.environ["MASTER_ADDR"]
    found = [master, socket.gethostname()]
    with contextlib.suppress(OSError):
        port = int(os.environ["MASTER_PORT"])
        family, kind, *_, address = socket.getaddrinfo(master, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing: finds the interface
            found.append(probe.getsockname()[0])
    return list(dict.fromkeys(found))


def _accept(server: socket.socket, size: int, token: str) -> dict[str, socket.socket]:
    """The connections of all other ranks, by name. Strangers are turned away; nobody waits for one that says nothing.

    Raises:
        OSError: not all of them connect in time.
    """
    connections: dict[str, socket.socket] = {}
    silent: list[socket.socket] = []  # oldest first
    deadline, most_silent = time.monotonic() + _CONNECT_S, size + _MAX_STRANGERS
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        stack.callback(_close_all, silent)
        selector.register(server, selectors.EVENT_READ)
        while len(connections) < size - 1:
            ready = [key.fileobj for key, _ in selector.select(max(deadline - time.monotonic(), 0))]
            if time.monotonic() > deadline:  # strangers may come without end
                raise TimeoutError(f"{len(connections)} of {size - 1} other ranks have connected in {_CONNECT_S:.0f} s")
            for connection in [one for one in silent if one in ready] + silent[:-most_silent]:
                if connection in silent:
                    silent.remove(connection)
                    selector.unregister(connection)
                    if name := _known(connection, token):
                        connections[name] = connection
                    else:
                        connection.close()
            if server in ready:
                with contextlib.suppress(OSError):  # it has gone already
                    silent.append(server.accept()[0])
                    selector.register(silent[-1], selectors.EVENT_READ)
    return connections


def _close_all(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def _known(connection: socket.socket, token: str) -> str:
    """The name of the rank at the other end, which is answered; empty if it is a stranger, or has gone."""
    connection.settimeout(0)
    with contextlib.suppress(OSError):
        stated, _, name = connection.recv(_MAX_BYTES).decode(errors="replace").partition(" ")
        if secrets.compare_digest(stated.encode(), token.encode()):
            connection.sendall(token.encode())
            return name
    return ""


def _connect(rank: int, addresses: list[str], port: int, token: str) -> dict[str, socket.socket]:
    """The connection to rank 0, by its name."""
    failure = OSError("no answer")
    for address in addresses:
        try:
            connection = socket.create_connection((address, port), _CONNECT_S / len(addresses))
            connection.sendall(f"{token} rank {rank} ({socket.gethostname()})".encode())
            if connection.recv(_MAX_BYTES) == token.encode():
                return {f"rank 0 ({address})": connection}
            connection.close()
        except OSError as error:
            failure = error
    raise failure


def _keep_alive(connection: socket.socket) -> None:
    """An error of the next read if the other machine does not answer for ``LOST_S``, even while nothing is sent."""
    connection.settimeout(None)
    options = {
        socket.TCP_KEEPIDLE: _PROBE_S,
        socket.TCP_KEEPINTVL: _PROBE_S,
        socket.TCP_KEEPCNT: LOST_S // _PROBE_S - 1,
    }
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in options.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_S * 1000)
