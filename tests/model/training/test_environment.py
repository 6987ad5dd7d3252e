"""Environment variables of torchrun: incomplete, wrong, or set by a cluster for a single process."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import threading
import types

import pytest
import torch
from torch import distributed

from model.training import connect
from model.training.launch import RankError, local_device
from model.training.ranks import Ranks, open_ranks
from tests.processes import error_of
from tests.shared_checkout import free_port

COMPLETE = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}

LAUNCHERS = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@pytest.fixture
def environment(monkeypatch):
    for name in (*COMPLETE, *LAUNCHERS, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    def change(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.mark.parametrize("values", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"RANK": "0"}, {"LOCAL_RANK": "0"}])
def test_one_process(environment, values):
    environment(**values)
    with open_ranks("cpu") as ranks:
        assert (ranks.rank, ranks.size, ranks.group) == (0, 1, None)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM_STEP_NUM_TASKS"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, "SLURM_NTASKS"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE"),
        ({"PMI_SIZE": "4"}, "PMI_SIZE"),
    ],
)
def test_several_processes_of_another_launcher_are_refused(environment, values, name):
    environment(**values)
    with pytest.raises(RankError) as error, open_ranks("cpu"):
        pass
    assert str(error.value) == (
        f"{name} is 4, and each process would train the whole run: start several with torchrun"
        " (in Slurm: srun torchrun, one task a node); or set WORLD_SIZE=1 if each is a run of its own"
    )
    environment(WORLD_SIZE="1")
    with open_ranks("cpu") as ranks:
        assert ranks.size == 1


@pytest.mark.parametrize(
    "values",
    [
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},  # interactive srun
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},  # one task of a larger job
        {"SLURM_NTASKS": "4"},  # the shell of salloc
        {"SLURM_NTASKS": "many", "SLURM_PROCID": "x"},
        {"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"},
    ],
)
def test_one_process_of_another_launcher_trains_without_a_word(environment, values, capsys):
    environment(**values)
    with open_ranks("cpu") as ranks:
        assert ranks.size == 1
    assert capsys.readouterr().err == ""


def test_a_batch_script_of_several_tasks_trains_alone_and_says_so(environment, capsys):
    environment(SLURM_NTASKS="4", SLURM_PROCID="0")
    with open_ranks("cpu") as ranks:
        assert ranks.size == 1
    assert capsys.readouterr().err == (
        "SLURM_NTASKS is 4, but this process trains alone: start several with torchrun"
        " (in Slurm: srun torchrun, one task a node)\n"
    )


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set, MASTER_PORT is not set, MASTER_ADDR is not set: "),
        ({**COMPLETE, "RANK": ""}, "WORLD_SIZE is 2, but RANK is not set: start several processes with torchrun"),
        ({**COMPLETE, "RANK": "x"}, "but RANK is 'x'"),
        ({**COMPLETE, "RANK": "-1"}, "but RANK is '-1'"),
        ({**COMPLETE, "RANK": "2"}, "but RANK is 2, expected less than WORLD_SIZE"),
        ({**COMPLETE, "MASTER_ADDR": ""}, "but MASTER_ADDR is not set"),
        ({**COMPLETE, "MASTER_PORT": "http"}, "but MASTER_PORT is 'http'"),
        ({**COMPLETE, "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two': start"),
    ],
)
def test_incomplete_variables_are_one_line(environment, values, found):
    environment(**values)
    with pytest.raises(RankError) as error, open_ranks("cpu"):
        pass
    assert found in str(error.value)
    assert str(error.value).endswith("start several processes with torchrun, or unset WORLD_SIZE to run one")


def test_an_address_where_nothing_can_listen_is_one_line(environment):
    environment(**{**COMPLETE, "MASTER_PORT": "999999999"})
    with (
        pytest.raises(RankError, match="no connection to the other processes at localhost:999999999"),
        open_ranks("cpu"),
    ):
        pass


@pytest.fixture
def on_gpus(environment, monkeypatch):
    """Processes as if they had GPUs: what they know of the others, and how often their groups have been ended."""
    environment(**COMPLETE)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    peers = types.SimpleNamespace(lost="", ended=0, loss=lambda: peers.lost)
    monkeypatch.setattr("model.training.ranks.watched", lambda *_: contextlib.nullcontext(peers))
    for name, value in (("init_process_group", None), ("get_rank", 0), ("get_world_size", 1)):
        monkeypatch.setattr(distributed, name, lambda *_, _value=value, **__: _value)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: setattr(peers, "ended", peers.ended + 1))
    return peers


@pytest.mark.parametrize(
    ("device", "error", "ends"),
    [
        ("cuda:0", None, True),
        ("cuda:0", SystemExit(130), True),  # all ranks leave together
        ("cuda:0", MemoryError(), False),
        ("cuda:0", KeyboardInterrupt(), False),
        ("cpu", MemoryError(), True),
    ],
)
def test_a_rank_that_fails_does_not_wait_for_the_others_before_it_says_why(on_gpus, device, error, ends):
    """The end of NCCL's groups waits for all ranks."""
    with contextlib.nullcontext() if error is None else pytest.raises(type(error)), open_ranks(device):
        if error is not None:
            raise error
    assert on_gpus.ended == ends


@pytest.mark.parametrize(
    ("text", "lost", "line"),
    [
        (
            "NCCL error in: NCCL.cpp:1, unhandled system error\nncclSystemError: failed.\nLast error:\nno /dev/shm",
            "",
            "NCCL failed: no /dev/shm; set NCCL_DEBUG=INFO to see more",
        ),
        ("NCCL error in: NCCL.cpp:1\nncclRemoteError: closed", "rank 1 has ended", "rank 1 has ended"),
        ("[gloo/pair.cc:1] Connection closed by peer", "", "another rank has exited; see its error message"),
        ("[gloo/pair.cc:1] Timed out waiting", "rank 1", "another rank hangs: no data from it for 600 seconds"),
    ],
)
def test_why_a_collective_failed(on_gpus, text, lost, line):
    on_gpus.lost = lost
    with pytest.raises(RankError) as error, open_ranks("cuda:0"):
        raise distributed.DistBackendError(text)
    assert str(error.value) == line


def test_the_gpu_of_a_process(environment, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device("cuda") == "cuda"
    assert local_device("cpu") == "cpu"
    environment(**COMPLETE, LOCAL_RANK="1")
    assert local_device("cuda") == "cuda:1"
    environment(LOCAL_RANK="2")
    with pytest.raises(RankError, match="LOCAL_RANK is 2, and this machine has 2 GPUs: start a process for each"):
        local_device("cuda")
    environment(LOCAL_RANK="")
    with pytest.raises(RankError, match="LOCAL_RANK is not set"):
        local_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert local_device("cuda") == "cuda:0"  # a cluster that gives each process a machine


def test_commands_tell_their_own_error_where_a_cluster_sets_only_the_size(environment, run, tmp_path):
    environment(WORLD_SIZE="2")
    missing = tmp_path / "no.pt"
    assert error_of(run("bench", "lfw", "--network", missing)).startswith(f"Error: {missing}: not found")
    assert error_of(run("train", "--shards", tmp_path)).startswith("Error: WORLD_SIZE is 2, but RANK is not set")


@pytest.mark.parametrize(
    "words", [["bench", "compare", "a", "b"], ["bench", "speed", "step"], ["build-shards"], ["verify"]]
)
def test_commands_of_one_process_refuse_torchrun(environment, run, words):
    environment(**COMPLETE)
    command = " ".join(words[: 2 if words[0] == "bench" else 1])
    assert error_of(run(*words)) == (
        f"Error: rank 0: {command} runs in one process, but RANK is 0 and WORLD_SIZE 2: start it without torchrun, or"
        " unset WORLD_SIZE"
    )


@pytest.mark.parametrize(
    "words", [["bench", "qmul"], ["bench", "all"], ["embed", "x", "--out", "y.parquet"], ["audit", "x", "--out", "y"]]
)
@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_but_the_first_only_embed(environment, run, monkeypatch, tmp_path, words, rank):
    """They read neither data sets nor images of their own, and write nothing; they end when rank 0 does."""
    sent = []

    @contextlib.contextmanager
    def alone(device):
        ranks = Ranks(rank=rank)
        monkeypatch.setattr(ranks, "broadcast", lambda value=None: sent.append(value))
        yield ranks

    monkeypatch.setattr("model.training.ranks.open_ranks", alone)
    environment(**{**COMPLETE, "RANK": str(rank)})
    done = run(*words, "--network", "x.pt")
    assert sent[-1] is None
    if rank:
        assert sent == [None]
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert list(tmp_path.iterdir()) == []
    else:
        assert done.returncode == 1


def test_a_signal_ends_the_wait_for_processes_that_do_not_come(environment, monkeypatch):
    """PyTorch waits in C++, where Python learns of no signal."""
    port = str(free_port())
    environment(**{**COMPLETE, "MASTER_PORT": port})
    lines = []

    def told(line):
        lines.append(line)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(connect, "QUIET_S", 0.01)
    monkeypatch.setattr(connect, "print_stderr", told)
    with pytest.raises(KeyboardInterrupt):
        connect.connect("gloo", "cpu", datetime.timedelta(seconds=20))
    assert "connect" in [thread.name for thread in threading.enumerate()]  # it has not waited
    assert lines == [f"rank 0: waiting for the other processes at localhost:{port}"]
