"""Commands that are interrupted: what they say, keep and continue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from model.formats.checkpoint import checkpoints
from model.training import loop
from pipeline.demo.generate import write_demo_data
from tests.processes import PATIENCE_S, REPOSITORY


@pytest.mark.usefixtures("narrow")
def test_interrupted_training_saves_and_continues(shard_set, tmp_path, run, interrupted):
    words = ["train", "--shards", shard_set, "--out", tmp_path / "run", "--backbone", "spherenet4:pooling=true"]
    words += ["--views", "16,8", "--batch-size", 4, "--steps", 100]
    line = interrupted(loop, "_check_batch", 1, words)
    (saved,) = checkpoints(tmp_path / "run")
    step = int(saved.stem)
    assert line == f"interrupted after step {step}; saved in {tmp_path}/run: run the same command to continue"
    assert step < 100
    assert f"trained {step + 1} steps" in run(*words[:-1], step + 1).stderr


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_interrupted_by_a_signal_saves_exits_130_and_continues(shard_set, tmp_path, run, number):
    words = [
        "train",
        "--shards",
        str(shard_set),
        "--out",
        str(tmp_path / "run"),
        "--backbone",
        "spherenet4:pooling=true",
    ]
    words += ["--views", "16,8", "--batch-size", "4", "--log-every", "1", "--steps", "100000"]
    environment = {**os.environ, "LRFR_DATA": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "cli.py", *words], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("spherenet4:pooling=true, 1.8 M parameters, fp32 on ")
    assert process.stderr.readline().startswith("step 1/100000")
    process.send_signal(number)
    rest = process.stderr.read().splitlines()
    assert process.wait(PATIENCE_S) == 130
    (saved,) = checkpoints(tmp_path / "run")
    step = int(saved.stem)
    saved_in = f"saved in {tmp_path}/run: run the same command to continue"
    assert rest[-1] == f"interrupted after step {step}; {saved_in}"
    words[-1] = str(step + 1)
    assert f"trained {step + 1} steps" in run(*words).stderr


BUILD_THAT_WAITS = """
import time
import cli
from pipeline.progress import Progress

def wait(progress, images):
    print("a shard is finished", flush=True)
    time.sleep(3600)

Progress.update = wait
cli.main()
"""


@pytest.mark.slow
def test_an_interrupted_build_exits_130_and_goes_on(run, tmp_path):
    write_demo_data(tmp_path, identities=4, images=2, seed=0, layouts=["VGGFace2"])
    words = ["build-shards", "--images-per-shard", "1", "--workers", "1"]
    environment = {**os.environ, "LRFR_DATA": str(tmp_path)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", BUILD_THAT_WAITS, *words]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, **streams)
    assert process.stdout.readline() == "a shard is finished\n"
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=PATIENCE_S)[1].splitlines()[-1]
    assert message == "interrupted; finished shards are kept: run the same command to continue"
    assert process.returncode == 130
    assert list(tmp_path.glob("shards/*.done.json"))
    assert run(*words).returncode == 0
    assert run("verify", "--full").returncode == 0


INTERRUPTED_IMPORT = """
import os, signal, sys
import cli

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            try:
                os.kill(os.getpid(), signal.{signal})
            except BaseException:
                pass

sys.meta_path.insert(0, Finder())
cli.main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("module", ["pyarrow.parquet", "numpy.linalg", "cv2"])
def test_a_signal_during_imports_ends_the_command(vggface2, tmp_path, module, name):
    """Extension modules swallow exceptions while they are imported."""
    code = INTERRUPTED_IMPORT.format(module=module, signal=name)
    command = [sys.executable, "-c", code, "build-shards", "--root", str(vggface2), "--out", str(tmp_path / "out")]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "interrupted\n")
    assert not (tmp_path / "out").exists()
