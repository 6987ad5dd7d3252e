"""Two machines on this one: each has its own network, mounts, host name and processes, and a cable joins them.

They are namespaces of the kernel without a name: nothing of them is left when their first process ends, and it ends with
the test that started it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.processes import PATIENCE_S, REPOSITORY

_NAMESPACES = ("--net", "--mount", "--uts", "--pid")
_UNSHARE = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"]


@functools.cache
def possible():
    """Whether this machine lets us make namespaces: as root, with util-linux and iproute2."""
    if os.geteuid() or not all(map(shutil.which, ("unshare", "nsenter", "setpriv", "ip"))):
        return False
    cable = ["sh", "-c", "ip link set lo up && ip link add eth0 type veth peer name eth1 && mount -t tmpfs none /mnt"]
    return subprocess.run([*_UNSHARE, *cable], capture_output=True).returncode == 0


class Host:
    """A machine called ``node1`` or ``node2``, whose address is 10.77.0.1 or .2.

    Its own name leads to 127.0.1.1, as on Debian, so that Gloo must be told the network interface.
    """

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.address, self._folder = number, f"10.77.0.{number}", folder
        names = {1: "10.77.0.1", 2: "10.77.0.2", number: "127.0.1.1"}
        hosts = folder / f"hosts-{number}"
        lines = [f"{address} node{one}" for one, address in names.items()]
        hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        first = f"hostname node{number}; mount --bind '{hosts}' /etc/hosts; ip link set lo up; echo up; exec sleep inf"
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *_UNSHARE, "sh", "-ec", first], stdout=subprocess.PIPE, text=True
        )
        self._processes: list[subprocess.Popen] = []
        assert self._holder.stdout.readline() == "up\n"

    @property
    def pid(self) -> int:
        return self._holder.pid

    def words(self, *command) -> list[str]:
        """The command that runs ``command`` there."""
        pid_namespace = f"--pid=/proc/{self.pid}/ns/pid_for_children"
        where = ["--net", "--mount", "--uts", pid_namespace, f"--wd={REPOSITORY}"]
        return ["nsenter", f"--target={self.pid}", *where, *map(str, command)]

    def start(self, *command, **environment) -> subprocess.Popen:
        """Starts a command; ``finished`` reads its output."""
        variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment}
        with open(self._folder / f"output-{self.number}-{len(self._processes)}", "w+") as output:
            process = subprocess.Popen(self.words(*command), env=variables, stdout=output, stderr=output)
        process.output = Path(output.name)
        self._processes.append(process)
        return process

    def run(self, *command) -> None:
        subprocess.run(self.words(*command), check=True, timeout=PATIENCE_S)

    def ip(self, *words) -> None:
        """Runs ``ip`` in the machine's network, where it finds the other machines by their process numbers here."""
        subprocess.run(["nsenter", f"--target={self.pid}", "--net", "ip", *map(str, words)], check=True)

    def kill(self, process: subprocess.Popen) -> None:
        """SIGKILL to the process of ``start``, and to no other."""
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)

    def close(self) -> None:
        """Kills all processes of the machine."""
        self._holder.kill()
        for process in [self._holder, *self._processes]:
            process.wait()
        self._holder.stdout.close()


@contextlib.contextmanager
def two_hosts(folder: Path):
    """Two machines; interface ``eth0`` of each is an end of the cable."""
    with contextlib.ExitStack() as stack:
        hosts = []
        for number in (1, 2):
            hosts.append(Host(number, folder))
            stack.callback(hosts[-1].close)
        one, two = hosts
        one.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", two.pid)
        for host in hosts:
            host.ip("address", "add", f"{host.address}/24", "dev", "eth0")
            host.ip("link", "set", "eth0", "up")
        yield hosts


def torchrun(host: Host, launch: list[str], *words, **environment) -> subprocess.Popen:
    """Starts ``torchrun``'s words ``launch`` and those of a script on a machine."""
    command = [sys.executable, "-m", "torch.distributed.run", *launch, *words]
    return host.start(*command, GLOO_SOCKET_IFNAME="eth0", **environment)


def finished(*processes: subprocess.Popen) -> list[tuple[int, str]]:
    """Exit code and output of each, when all have ended."""
    deadline = time.monotonic() + PATIENCE_S
    codes = [one.wait(max(deadline - time.monotonic(), 1)) for one in processes]
    return [(code, one.output.read_text()) for code, one in zip(codes, processes, strict=True)]
