"""The commands of docs/guide/distributed.md that build shards on several machines, run on this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from pipeline.build import build, options_for
from tests.pipeline.build.made import contents
from tests.processes import PATIENCE_S, REPOSITORY
from tests.shared_checkout import ray_cluster

PAGE = (REPOSITORY / "docs" / "guide" / "distributed.md").read_text()
SCRIPTS = re.findall(r"```sh\n(.*?)```", PAGE[PAGE.index("## Building shards") : PAGE.index("## Scoring")], re.S)
PARTS = 2  # instead of as many as the page has


@pytest.fixture
def machine(vggface2, tmp_path):
    """Runs a script of the page with the folder ``shared`` in place of ``/shared``, and ``ssh`` to this machine."""
    shared = tmp_path / "shared"
    (shared / "lrfr").mkdir(parents=True)
    for link in ("faces", "lrfr/VGGFace2"):
        (shared / link).symlink_to(vggface2)
    programs, checkout = tmp_path / "bin", shared / "checkout"
    installed = checkout / ".venv" / "bin"
    for folder in (programs, installed):
        folder.mkdir(parents=True)
    (checkout / "cli.py").symlink_to(REPOSITORY / "cli.py")
    (installed / "activate").write_text(f"PATH={installed}:$PATH\n")
    for program, text in (
        (programs / "ssh", 'echo "$1" >&2\nshift\nexec bash -c "$*"'),
        (installed / "python", f'exec {sys.executable} "$@"'),
    ):
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)

    def run(script, **variables):
        path = os.pathsep.join((str(programs), os.environ["PATH"]))
        variables = {name: value.replace("/shared", str(shared)) for name, value in variables.items()}
        environment = {**os.environ, "PATH": path, "SLURM_SUBMIT_DIR": str(checkout), **variables}
        script = script.replace("/shared", str(shared)).replace("build-shards ", "build-shards --images-per-shard 12 ")
        words = ["bash", "-euc", script]
        process = subprocess.run(
            words, cwd=checkout, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert process.returncode == 0, process.stderr
        return process.stderr

    return run


@pytest.fixture
def expected(vggface2, tmp_path):
    build(options_for("vggface2", root=vggface2, out=tmp_path / "whole", executor="serial", images_per_shard=12))
    return contents(tmp_path / "whole")


def script_with(word):
    (script,) = (script for script in SCRIPTS if word in script)
    return script


@pytest.mark.heavy
def test_an_array_of_slurm_builds_the_set(machine, tmp_path, expected):
    for number in range(1, PARTS + 1):
        machine(script_with("SLURM_ARRAY_TASK_ID"), SLURM_ARRAY_TASK_ID=str(number), SLURM_ARRAY_TASK_COUNT=str(PARTS))
    assert contents(tmp_path / "shared" / "lrfr" / "shards") == expected


@pytest.mark.heavy
def test_machines_with_ssh_build_the_set(machine, tmp_path, expected):
    script = script_with("ssh").replace("1 2 3 4", "1 2").replace("/4", f"/{PARTS}")
    assert {"node1", "node2"} <= set(machine(script).splitlines())
    assert contents(tmp_path / "shared" / "lrfr" / "shards") == expected


@pytest.mark.heavy
def test_a_cluster_started_by_hand_builds_the_set(machine, tmp_path, expected):
    pytest.importorskip("ray")
    head, other = (line for line in script_with("ray start --head").splitlines() if line.startswith("ray start"))
    build_line = script_with("--ray-address auto").splitlines()[-1]
    with ray_cluster(head, [other]) as (found, _):
        machine(f'. "$SLURM_SUBMIT_DIR/.venv/bin/activate"\n{build_line}', **found, LRFR_DATA="/shared/lrfr")
    assert contents(tmp_path / "shared" / "lrfr" / "shards") == expected


@pytest.mark.heavy
def test_a_part_by_hand(machine, tmp_path):
    assert "part 1/8 done" in machine(f'. "$SLURM_SUBMIT_DIR/.venv/bin/activate"\n{script_with("--part 1/8")}')
