"""bench, embed and audit in several processes: the output of one process, printed once; how they fail."""

from __future__ import annotations

import json
import re

import pytest

from pipeline.demo.generate import write_demo_data
from tests.networks import save_small, small_backbone
from tests.processes import torchrun

pytestmark = pytest.mark.heavy


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Generated data sets with two unusable images, and a network."""
    write_demo_data(tmp_path, identities=8, images=3, seed=0)
    images = sorted((tmp_path / "QMUL-SurvFace" / "Face_Verification_Test_Set" / "verification_images").iterdir())
    images[3].unlink()
    images[5].write_bytes(b"nonsense")
    save_small(tmp_path / "x.pt")
    monkeypatch.setenv("LRFR_DATA", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def without_rates(text):
    return re.sub(r" \[.*?/s\]", "", text)


def test_bench_all_gives_the_figures_of_one_process(data, run_process):
    words = ["bench", "all", "--network", data / "x.pt", "--batch-size", 3, "--allow-missing", "--no-cache", "--json"]
    alone, together = run_process(*words, data / "one.json"), torchrun(2, "cli.py", *words, data / "two.json")
    assert (alone.returncode, together.returncode) == (0, 0), together.stderr
    assert together.stdout == alone.stdout
    assert without_rates(together.stderr) == without_rates(alone.stderr)
    one, two = (json.loads((data / name).read_text())["results"] for name in ("one.json", "two.json"))
    assert len(one) == 6
    assert [len(result["missing"]) for result in one] == [0, 0, 0, 2, 0, 0]
    for result, other in zip(one, two, strict=True):
        for name in result.keys() - {"measurement"}:
            assert other[name] == result[name], (result["benchmark"], name)


def test_several_networks_are_scored_in_one_go(data, run_process):
    save_small(data / "y.pt", step=9, backbone_state=small_backbone(1).state_dict())
    words = ["bench", "lfw", "--batch-size", 3, "--no-cache"]
    for name in ("x.pt", "none.pt", "y.pt"):
        words += ["--network", data / name]
    alone, together = run_process(*words), torchrun(2, "cli.py", *words)
    assert (alone.returncode, together.returncode) == (1, 1)
    assert "step 7" in alone.stdout
    assert "step 9" in alone.stdout
    assert together.stdout == alone.stdout
    missing = f"{data}/none.pt: not scored: {data}/none.pt: not found; expected a checkpoint file"
    assert together.stderr.splitlines().count(missing) == alone.stderr.splitlines().count(missing) == 1
    last = "1 of 3 networks could not be scored, see above"
    assert re.findall("^Error: .*", together.stderr, re.M) == [f"Error: rank 0: {last}"]


def test_embed_and_audit_write_the_files_of_one_process(data, shard_set, run_process):
    for number, runner in enumerate((run_process, lambda *words: torchrun(2, "cli.py", *words))):
        options = ["--network", data / "x.pt", "--batch-size", 3, "--no-cache"]
        for words in (
            ["embed", data / "LFW", "--out", data / f"{number}.parquet"],
            ["audit", shard_set, "--out", data / f"{number}"],
        ):
            done = runner(*words, *options)
            assert done.returncode == 0, done.stderr
    assert (data / "0.parquet").read_bytes() == (data / "1.parquet").read_bytes()
    assert (data / "0" / "audit.parquet").read_bytes() == (data / "1" / "audit.parquet").read_bytes()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_ends_all_with_its_line(data, rank, monkeypatch):
    (data / "network.py").write_text(
        "import os\n"
        "import numpy as np\n"
        "calls = []\n"
        "def embed(images):\n"
        "    calls.append(len(images))\n"
        f"    bad = os.environ['RANK'] == '{rank}' and len(calls) > 3\n"
        "    return np.full((len(images), 4), np.nan if bad else len(calls), np.float32)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(data))
    done = torchrun(
        2, "cli.py", "bench", "lfw", "--network", "network:embed", "--preprocessing", "seed", "--batch-size", 2
    )
    assert done.returncode == 1
    reason = "the network's embeddings are not finite; the checkpoint is damaged or its training diverged"
    assert re.findall("^Error: .*", done.stderr, re.M) == [
        f"Error: rank 0: {reason}" if rank == 0 else f"Error: rank 0: rank 1 failed: {reason}"
    ]
    assert done.stdout == ""
