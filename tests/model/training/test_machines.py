"""Two machines train one run; one of them is lost, sees another disk, or the run is in a store."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import sys

import numpy as np
import pytest

from model.formats.checkpoint import checkpoints
from tests.documents import shell_lines
from tests.hosts import finished, torchrun, two_hosts
from tests.processes import REPOSITORY, wait_until

pytestmark = [pytest.mark.heavy, pytest.mark.namespaces]
RECORDED = "tests/model/training/recorded.py"
STEPS, LOST = 8, 4  # steps, and the batch of which a machine is lost
HOLD = "2,0"  # the loader's state after this batch: an epoch of 9 identities has two batches of 4


@pytest.fixture(autouse=True, scope="module")
def _narrow():
    """The run of this process is compared with those of others, whose networks are whole."""


@pytest.fixture
def hosts(tmp_path):
    with two_hosts(tmp_path) as hosts:
        yield hosts


def launch(kind):
    """The options of torchrun that the guide states for ``kind``, for one process a machine."""
    page = REPOSITORY / "docs" / "guide" / "distributed.md"
    (line,) = [line for line in shell_lines(page) if line.startswith(f"torchrun {kind} ") and "HOST" in line]
    words = shlex.split(line.replace("HOST", "node1").replace("--nproc-per-node 8", "--nproc-per-node 1"))
    return words[1 : words.index("cli.py")]


def training(shards, out, steps=STEPS):
    options = "--backbone spherenet4 --lr 0.0001 --batch-size 4 --views 128,8 --log-every 1 --save-every 2"
    return ["train", "--shards", shards, *options.split(), "--steps", steps, "--out", out]


@pytest.fixture
def alone(shard_set, tmp_path, run, monkeypatch):
    """The run of one process that nothing interrupts, with its records."""
    (tmp_path / "alone").mkdir()
    monkeypatch.setenv("RECORDS", str(tmp_path / "alone"))
    from pipeline.load.loader import Loader
    from tests.model.training import recorded

    monkeypatch.setattr(recorded, "FOLDER", tmp_path / "alone")
    monkeypatch.setattr(Loader, "__next__", recorded.recorded)
    assert run(*training(shard_set, tmp_path / "alone" / "run")).returncode == 0
    return tmp_path / "alone"


def batches(folder):
    """The rows and labels of the whole batch, by position, number of ranks and restart."""
    records = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    order = sorted(records, key=lambda one: (one["position"], one["size"], one["rank"]))
    found = {}
    for key, parts in itertools.groupby(order, key=lambda one: (*one["position"], one["size"])):
        ranks = list(parts)
        rows = np.concatenate([one["rows"] for one in ranks], axis=1).tolist()
        found[key] = (rows, np.concatenate([one["labels"] for one in ranks]).tolist())
    return found


def losses(run):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows}


def check_same(run, records, alone, resumed):
    """Compares rows, labels and losses with the uninterrupted run: two processes until the loss, then one."""
    whole = {key[:2]: batch for key, batch in batches(alone).items()}
    positions, seen = sorted(whole), batches(records)
    assert len(positions) == STEPS
    assert [key[:2] for key in seen if key[2] == 2] == positions[:LOST]
    assert [key[:2] for key in seen if key[2] == 1] == positions[resumed:]
    assert all(batch == whole[key[:2]] for key, batch in seen.items())
    ours, theirs = losses(run), losses(alone / "run")
    assert sorted(ours) == sorted(theirs) == list(range(1, STEPS + 1))
    assert ours == pytest.approx(theirs, rel=1e-4)


def started_until_held(hosts, options, words, records):
    """Starts ``words`` on both machines, and waits until the second one holds its batch ``HOLD``."""
    records.mkdir()
    started = [
        torchrun(host, options, RECORDED, *words, RECORDS=str(records), HOLD=hold)
        for host, hold in zip(hosts, ("", HOLD), strict=True)
    ]
    wait_until(lambda: (records / "held").exists())
    return started


def errors(output):
    return re.findall(r"^Error: .*", output, re.M)


def test_a_machine_whose_torchrun_is_killed_leaves_the_rest_to_the_other(hosts, shard_set, tmp_path, alone):
    out, records = tmp_path / "run", tmp_path / "records"
    started = started_until_held(hosts, launch("--nnodes 1:2"), training(shard_set, out), records)
    hosts[1].kill(started[1])
    ((code, output),) = finished(started[0])
    assert code == 0, output
    assert f"finished: trained {STEPS} steps" in output
    assert re.findall(r"cpu( in 2 processes)?;.* steps (\d) to 8", output) == [(" in 2 processes", "1"), ("", "5")]
    check_same(out, records, alone, resumed=4)


def test_a_machine_that_loses_its_network_ends_the_run_on_both(hosts, shard_set, tmp_path, alone):
    for host in hosts:  # torchrun on the machine without network waits for the kernel; by default a quarter of an hour
        host.run("sysctl", "-qw", "net.ipv4.tcp_retries2=8")
    out, records = tmp_path / "run", tmp_path / "records"
    started = started_until_held(hosts, launch("--nnodes 2"), training(shard_set, out), records)
    hosts[1].ip("link", "set", "eth0", "down")
    (code, first), (other, second) = finished(*started)
    assert (code, other) == (1, 1), first + second
    lost = "has not answered for 60 seconds: its machine is lost, or the network between"
    assert errors(first) == [f"Error: rank 0: rank 1 (node2) {lost}"]
    assert errors(second) == [f"Error: rank 1: rank 0 (node1) {lost}"]
    assert [path.stem for path in checkpoints(out)] == ["0000002"]
    again = torchrun(
        hosts[0], ["--standalone", "--nproc-per-node", "1"], RECORDED, *training(shard_set, out), RECORDS=str(records)
    )
    ((code, output),) = finished(again)
    assert code == 0, output
    assert "steps 3 to 8" in output
    check_same(out, records, alone, resumed=2)


def test_machines_that_do_not_share_the_run_folder_say_so(hosts, shard_set, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    hosts[1].run("mount", "-t", "tmpfs", "none", out)
    for steps in (2, 4):
        both = [torchrun(host, launch("--nnodes 2"), "cli.py", *training(shard_set, out, steps)) for host in hosts]
        results = finished(*both)
        assert [code for code, _ in results] == [0, 0] if steps == 2 else [1, 1], results
    lines = [line for _, output in results for line in errors(output)]
    (held,) = checkpoints(out)
    line = f"{held}: rank 0 and rank 1 do not see the same file; use a run folder that all processes share"
    assert sorted(lines) == [f"Error: rank 0: {line}", f"Error: rank 1: {line}"]


STORE = (
    "import sys, threading; from tests.object_store import ObjectStore; store = ObjectStore(sys.argv[1]); store.reset();"
    " open(sys.argv[2], 'w').write(store.url); threading.Event().wait()"
)


def test_machines_that_share_nothing_train_into_a_store(hosts, shard_set, tmp_path, monkeypatch):
    data, told = tmp_path / "data", tmp_path / "endpoint"
    data.mkdir()
    for host in hosts:
        host.run("mount", "-t", "tmpfs", "none", data)
    hosts[0].start(sys.executable, "-c", STORE, hosts[0].address, told)
    wait_until(lambda: told.exists() and told.read_text())
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
    access = {**keys, "AWS_ENDPOINT_URL": told.read_text(), "LRFR_DATA": str(data)}
    url = "s3://faces/runs/one"
    for steps in (2, 4, 6):
        words = ["cli.py", *training(shard_set, url, steps)]
        both = [torchrun(host, launch("--nnodes 2"), *words, **access) for host in hosts]
        results = finished(*both)
        assert [code for code, _ in results] == [0, 0], results
        outputs = results[0][1] + results[1][1]
        assert f"steps {steps - 1} to {steps} of" in outputs
        assert outputs.count(f"finished: trained {steps} steps: {url}") == 1
        if steps == 4:  # another machine takes the place of one
            hosts[1].run("umount", data)
            hosts[1].run("mount", "-t", "tmpfs", "none", data)
