"""The scripts of examples/slurm: no linter complains, and they run from ``submit.sh`` to a checkpoint, as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.build import build, options_for
from tests.pipeline.build.made import contents
from tests.processes import REPOSITORY
from tests.shared_checkout import Checkout

SCRIPTS = sorted((REPOSITORY / "examples" / "slurm").glob("*.sh"))
SBATCH = f'exec {sys.executable} "$JOBS/sbatch.py" "$@"'
SBATCH_PY = '''
"""Runs a job at once. Its number is written when it has ended well; a job that it depends on must have."""
import os, pathlib, re, subprocess, sys
*options, script = sys.argv[1:]
jobs = pathlib.Path(os.environ["JOBS"])
for option in options:
    name, _, value = option.partition("=")
    if name == "--dependency":
        assert (jobs / re.fullmatch(r"afterok:([0-9]+)", value)[1]).exists(), value
    else:
        assert option in ("--parsable", "--kill-on-invalid-dep=yes"), option
number = str(100 + len(list(jobs.glob("[0-9]*"))))
directives = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\\S+))?$", pathlib.Path(script).read_text(), re.M))
variables = {"SLURM_SUBMIT_DIR": os.getcwd(), "SLURM_JOB_ID": number, "SLURM_NNODES": directives.get("nodes", "1"),
             "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_GPUS_ON_NODE": "1",
             "SLURM_CPUS_PER_TASK": directives["cpus-per-task"]}
tasks = [{}]
if "array" in directives:
    assert directives["array"] == "1-8"
    tasks = [{"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2"} for task in (1, 2)]
for task in tasks:
    subprocess.run(["bash", script], env={**os.environ, **variables, **task}, check=True, stdout=sys.stderr)
(jobs / number).write_text(script)
print(number + ";cluster")
'''
PROGRAMS = {
    "sbatch": SBATCH,
    "scontrol": 'test "$*" = "show hostnames node[1-2]"\nprintf "localhost\\nother\\n"',
    "srun": 'test "$1 $2" = "--cpus-per-task 64" && shift 2 || exit\n'
    'for node in $(seq "$SLURM_NNODES"); do "$@" & started+=($!); done\n'
    'for process in "${started[@]}"; do wait "$process"; done',
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_linter_complains(script):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    process = subprocess.run([shellcheck, "--exclude=SC1091", script], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "")
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_every_job_is_submitted():
    submit = (REPOSITORY / "examples" / "slurm" / "submit.sh").read_text()
    assert len(SCRIPTS) == 4
    assert [path.name for path in SCRIPTS if path.name not in submit] == ["submit.sh"]


@pytest.mark.heavy
def test_from_submit_to_a_checkpoint(vggface2, tmp_path):
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "sbatch.py").write_text(SBATCH_PY)
    checkout = Checkout(tmp_path, vggface2, PROGRAMS)
    data = checkout.shared / "lrfr"
    stdout, _ = checkout.run("examples/slurm/submit.sh", JOBS=str(jobs), LRFR_DATA="/shared/lrfr")
    assert stdout == "submitted: build 100;cluster, finish 101;cluster, train 102;cluster\n"
    ran = {path.name: path.read_text() for path in jobs.glob("[0-9]*")}
    assert ran == {str(100 + at): f"examples/slurm/{name}.sh" for at, name in enumerate(("build", "finish", "train"))}
    build(options_for("vggface2", root=vggface2, out=tmp_path / "whole", executor="serial", images_per_shard=12))
    assert contents(data / "shards") == contents(tmp_path / "whole")
    assert (data / "runs" / "first" / "checkpoints" / "0000002.pt").is_file()
