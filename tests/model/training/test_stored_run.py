"""Run folders in an object store: what is uploaded, and where the next machine resumes."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest

from model.training import stored_run
from model.training.config import TrainingError
from model.training.ranks import Ranks
from model.training.stored_run import StoredRun
from shards.store import Store, StoreError
from tests.object_store import Fault
from tests.processes import error_of, wait_until

URL = "s3://faces/runs/one"


@pytest.fixture
def machine(object_store, tmp_path, monkeypatch):
    """Opens the run on a machine of some name, whose files stay."""
    monkeypatch.setattr(stored_run, "POLL_S", 0.01)

    def opened(name, keep=2):
        return StoredRun(Store(URL), tmp_path / name, keep=keep).opened(Ranks())

    return opened


def write(folder, **files):
    """Writes files such as ``checkpoints/0000002.pt``, named ``step2``, each with some text."""
    for name, text in files.items():
        path = folder / (f"checkpoints/{int(name[4:]):07d}.pt" if name[:4] == "step" else name.replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def content(object_store):
    return object_store.content("runs/one")


def test_errors_name_the_store(machine):
    """A file that is mended on this machine would be replaced by that of the store."""
    with pytest.raises(TrainingError, match=f"^{URL}/config.json: not of a run$"), machine("a") as run:
        raise TrainingError(f"{run}/config.json: not of a run")


def test_a_remedy_names_the_checkpoint_on_this_machine(machine):
    """``--resume`` takes no URL."""
    text = "the loss is nan, no update was made; add --resume {}/checkpoints/0000002.pt --out NEW"
    with pytest.raises(TrainingError) as error, machine("a") as run:
        raise TrainingError(text.format(run))
    assert str(error.value) == text.format(run)


def test_a_checkpoint_is_uploaded_while_training_goes_on_and_logs_at_the_end(machine, object_store):
    with machine("a") as run:
        write(run, config_json="{}", metrics_jsonl="1\n", step1="one", best_pt="best", best_json="1")
        wait_until(lambda: "checkpoints/0000001.pt" in Store(URL).list())
        write(run, metrics_jsonl="1\n2\n", step2="two", step3="three")
        (run / "checkpoints" / "0000001.pt").unlink()
    assert content(object_store) == {
        "config.json": b"{}",
        "metrics.jsonl": b"1\n2\n",
        "best.pt": b"best",
        "best.json": b"1",
        "checkpoints/0000002.pt": b"two",
        "checkpoints/0000003.pt": b"three",
    }
    sent = [path.removeprefix("/faces/runs/one/") for method, path, _ in object_store.requests if method == "PUT"]
    assert sent.index("best.pt") < sent.index("best.json") < sent.index("metrics.jsonl")
    assert sent[-2:] == ["checkpoints/0000002.pt", "checkpoints/0000003.pt"]


def test_another_machine_goes_on_from_the_newest_checkpoint(machine, object_store):
    with machine("a") as run:
        write(run, config_json="{}", metrics_jsonl="1\n", step1="one", step2="two", best_pt="best")
    with machine("b") as run:
        assert names(run) == ["best.pt", "checkpoints/0000002.pt", "config.json", "metrics.jsonl"]
        write(run, metrics_jsonl="1\n2\n3\n", step3="three")
    assert sorted(content(object_store))[1:3] == ["checkpoints/0000002.pt", "checkpoints/0000003.pt"]
    object_store.requests.clear()
    with machine("a") as run:  # it has step 2 still
        assert (run / "metrics.jsonl").read_text() == "1\n2\n3\n"
        assert names(run / "checkpoints") == ["0000002.pt", "0000003.pt"]
    assert object_store.count("GET", "best.pt") == object_store.count("GET", "0000002.pt") == 0
    assert object_store.count("PUT") == 0


def test_what_a_killed_process_could_not_upload_is_not_lost(machine, object_store, tmp_path, capsys):
    with machine("a") as run:
        write(run, metrics_jsonl="1\n", step1="one")
    write(run, metrics_jsonl="1\n2\n", step2="two")
    with machine("a"):
        assert names(run) == ["checkpoints/0000001.pt", "checkpoints/0000002.pt", "metrics.jsonl"]
    assert f"{URL}: lacks step 2, which {run} has; goes on from there" in capsys.readouterr().err
    assert content(object_store)["checkpoints/0000002.pt"] == b"two"
    write(run, step5="five")
    with machine("b") as other:
        write(other, step3="three")
    with pytest.raises(
        TrainingError, match=rf"^{URL}: has checkpoints of another machine, and {run} has that of step 5"
    ):
        machine("a").__enter__()
    assert (run / "checkpoints" / "0000005.pt").read_text() == "five"
    with machine("b") as other:
        write(other, step6="six")
    with machine("a"):  # the store is ahead
        assert names(run / "checkpoints") == ["0000006.pt"]


def test_a_machine_without_rank_0_goes_on_from_what_that_has_uploaded(machine, object_store, tmp_path, capsys):
    with machine("a") as run:
        write(run, step1="one")
    first, other = (StoredRun(Store(URL), tmp_path / name, keep=2) for name in "ab")
    write(first.folder, step3="not uploaded")
    write(other.folder, step9="of a time when it had rank 0")
    first._pull_first(SimpleNamespace(size=2))
    other.pull(follows=True)
    assert names(other.folder) == ["checkpoints/0000003.pt"]
    assert (other.folder / "checkpoints" / "0000003.pt").read_text() == "not uploaded"
    assert f"{other.folder}: its step 9 is deleted: rank 0 goes on from that of the store" in capsys.readouterr().err


def test_a_run_that_was_deleted_in_the_store_starts_again(machine, object_store):
    with machine("a") as run:
        write(run, metrics_jsonl="1\n", step1="one")
    for name in content(object_store):
        object_store.delete(f"runs/one/{name}")
    with machine("a"):
        assert names(run) == []
    assert content(object_store) == {}


def test_trouble_of_the_store_does_not_stop_the_training(machine, object_store, monkeypatch, capsys):
    monkeypatch.setattr("shards.attempts.TRIES", 1)
    trouble = Fault("503", "PUT", "0000001", 99)
    object_store.faults[:] = [trouble]
    with machine("a") as run:
        write(run, step1="one")
        wait_until(lambda: trouble.times < 96)
        trouble.times = 0
    assert content(object_store) == {"checkpoints/0000001.pt": b"one"}
    assert "503 Service Unavailable, 1 times; check the network and the store" in capsys.readouterr().err
    trouble.times, trouble.match = 99, "0000002"
    with pytest.raises(StoreError, match=r"0000002.pt: 503"), machine("a") as run:
        write(run, step2="two")
    with pytest.raises(ValueError, match="not finite"), machine("a") as run:
        raise ValueError("not finite")


@pytest.mark.parametrize("name", ["../up.txt", "a/../../b.txt", "/c.txt"])
def test_names_in_a_bucket_lead_nowhere_else(machine, object_store, tmp_path, name):
    object_store.put(f"runs/one/{name}", b"x")
    with pytest.raises(StoreError, match=rf"^{URL}: holds an object whose name is not a path \(.*; delete it, or"):
        machine("a").__enter__()
    assert list(tmp_path.rglob("*.txt")) == []


def test_two_processes_of_a_machine(machine):
    with machine("a"), pytest.raises(Exception, match=rf"^{URL}: another process is training here"):
        machine("a").__enter__()


@pytest.mark.heavy
def test_on_the_command_line(run, shard_set, object_store, tmp_path):
    words = ["train", "--shards", shard_set, "--backbone", "spherenet4", "--batch-size", 4, "--log-every", 1]
    words += ["--save-every", 2, "--out", URL, "--steps"]
    assert f"finished: trained 2 steps: {URL}" in run(*words, 2).stderr
    shutil.rmtree(tmp_path / "cache" / "stores")
    process = run(*words, 4)
    assert "steps 3 to 4 of 4 identities" in process.stderr
    assert process.stderr.endswith(f"finished: trained 4 steps: {URL}\n")
    stored = content(object_store)
    assert [json.loads(row)["step"] for row in stored["metrics.jsonl"].splitlines()] == [1, 2, 3, 4]
    assert {"config.json", "checkpoints/0000002.pt", "checkpoints/0000004.pt"} < set(stored)
    assert any(name.startswith("tensorboard/") for name in stored)
    assert f"nothing to do: {URL} has finished" in run(*words, 4).stderr
    assert error_of(run(*words[:-2], "s3://nowhere/x")).startswith("Error: s3://nowhere/x: there is no bucket nowhere")
