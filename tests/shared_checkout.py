"""A checkout on a file system that "all machines" share: scripts for clusters run in it, on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.processes import PATIENCE_S, REPOSITORY, wait_until

SMALL_BUILD = "--images-per-shard 12"
SMALL_RUN = "--backbone spherenet4 --batch-size 4 --steps 2 --loader-threads 1"
PROGRAMS = {
    "python": f'case "${{2:-}}" in build-shards) set -- "$@" {SMALL_BUILD} ;; esac\nexec {sys.executable} "$@"',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "${{@/:29500/:$PORT}}" {SMALL_RUN}',
}
"""Programs of the virtual environment; they append what makes the work small."""


def free_port():
    """A free TCP port."""
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return end.getsockname()[1]


class Checkout:
    """``folder`` stands for /shared, ``folder/checkout`` for the clone; ``programs`` come before those of the machine."""

    def __init__(self, folder: Path, vggface2: Path, programs: dict[str, str]) -> None:
        self.shared, self.checkout = folder / "shared", folder / "shared" / "checkout"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))
        }
        for name in ("LRFR_DATA", "WORLD_SIZE", "RANK"):
            self.environment.pop(name, None)
        installed, others = self.checkout / ".venv" / "bin", folder / "bin"
        for place, scripts in ((installed, PROGRAMS), (others, programs)):
            place.mkdir(parents=True)
            for name, script in scripts.items():
                (place / name).write_text(f"#!/bin/bash\nset -eu\n{script}\n")
                (place / name).chmod(0o755)
        (installed / "activate").write_text(f"PATH={installed}:$PATH\n")
        for name in ("cli.py", "examples"):
            (self.checkout / name).symlink_to(REPOSITORY / name)
        (self.shared / "lrfr").mkdir()
        (self.shared / "lrfr" / "VGGFace2").symlink_to(vggface2)
        path = os.pathsep.join((str(installed), str(others), os.environ["PATH"]))
        self.environment |= {"PATH": path, "PORT": str(free_port()), "OMP_NUM_THREADS": "1"}

    def start(self, script, **variables):
        """Starts a script, in which ``/shared`` and ``/lrfr`` are replaced."""
        script = script.replace("/lrfr/cli.py", "cli.py").replace("/shared", str(self.shared))
        variables = {name: value.replace("/shared", str(self.shared)) for name, value in variables.items()}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            ["bash", "-euc", script], cwd=self.checkout, env={**self.environment, **variables}, **streams
        )

    def run(self, script, **variables):
        """Returns what a script writes."""
        process = self.start(script, **variables)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, stderr
        return stdout, stderr


@contextlib.contextmanager
def ray_cluster(head, others):
    """A Ray cluster that the given command lines start, which name the port 6379 and the machine HOST.

    Ports are replaced by free ones, and the commands stay in the foreground, so that nothing of it outlives the block.

    Yields:
        The variables with which ``--ray-address auto`` finds it, and its address.
    """
    ray, port = str(Path(sys.executable).with_name("ray")), str(free_port())
    with tempfile.TemporaryDirectory(prefix="lrfr-", dir="/tmp", ignore_cleanup_errors=True) as folder:  # a short path
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment["RAY_TMPDIR"] = folder
        found, processes = Path(folder, "ray", "ray_current_cluster"), []
        here = "--block --num-cpus 1 --object-store-memory 100000000 --dashboard-agent-listen-port 0"
        lines = [f"{head} {here} --include-dashboard false --ray-client-server-port {free_port()}"]
        lines += [f"{line} {here}" for line in others]
        try:
            for number, line in enumerate(lines):
                program, *words = line.replace("6379", port).replace("HOST", "127.0.0.1").split()
                assert program == "ray"
                with open(Path(folder, f"{number}.log"), "wb") as log:
                    command = [ray, *words]
                    streams = {"stdout": log, "stderr": log}
                    processes.append(subprocess.Popen(command, env=environment, start_new_session=True, **streams))
                wait_until(lambda: found.exists() or processes[0].poll() is not None)
                assert found.exists(), Path(folder, "0.log").read_text()
            yield {"RAY_TMPDIR": folder}, found.read_text()
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            for process in processes:
                process.wait(PATIENCE_S)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
