"""ReadAhead: the batches of the sampler, a bounded number of them, and how its thread ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.load.ahead import AHEAD_BATCHES, ReadAhead
from pipeline.load.loader import Loader
from pipeline.load.sampler import IdentitySampler, LoaderState
from shards.index import ShardReader
from tests.pipeline.load.batches import BATCH, STEPS, assert_same, batches_of, global_batches
from tests.processes import PATIENCE_S, wait_until

VIEWS = 3


class CountingSampler(IdentitySampler):
    """Knows how many batches were drawn."""

    drawn = 0

    def draw(self, epoch, step):
        self.drawn += 1
        return super().draw(epoch, step)


class OpenError(Exception):
    """Nothing that the reader knows."""


class WaitingReader(ShardReader):
    """Waits in its first read until it is released."""

    def __init__(self, index):
        super().__init__(index)
        self.reading, self.go_on = threading.Event(), threading.Event()

    def padded(self, *arguments):
        self.reading.set()
        assert self.go_on.wait(PATIENCE_S)
        return super().padded(*arguments)


def sampler_of(index):
    start = LoaderState(seed=1, global_batch=BATCH, views=VIEWS, index_digest=index.manifest.index_digest)
    return CountingSampler(index.first, index.count, start), start


def ahead_of(index, reader=None):
    sampler, start = sampler_of(index)
    return ReadAhead(index, reader or ShardReader(index), sampler, start)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def open_tars(root):
    handles = [handle for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink()]
    return [handle for handle in handles if str(handle.readlink()).startswith(str(root))]


def test_batches_equal_those_read_one_after_another(index):
    sampler, at = sampler_of(index)
    with ahead_of(index) as ahead, ShardReader(index) as reader:
        for _ in range(STEPS):
            draw, batch = sampler.draw(at.epoch, at.step), ahead.next()
            assert np.array_equal(batch.draw.rows, draw.rows)
            assert np.array_equal(batch.draw.flips, draw.flips)
            assert np.array_equal(batch.jpegs, reader.padded(draw.rows.ravel()))
            at = at.next(sampler.steps_per_epoch)
    assert at.epoch == 2


def test_it_reads_ahead_as_many_batches_as_it_has_buffers(index):
    sampler, start = sampler_of(index)
    with ReadAhead(index, ShardReader(index), sampler, start) as ahead:
        for expected in (AHEAD_BATCHES + 1, AHEAD_BATCHES + 1, AHEAD_BATCHES + 2, AHEAD_BATCHES + 3):
            wait_until(lambda drawn=expected: sampler.drawn == drawn)
            ahead.next()
    assert sampler.drawn <= AHEAD_BATCHES + 4


def test_buffers_are_used_again(index):
    with ahead_of(index) as ahead:
        places = {ahead.next().jpegs.ctypes.data for _ in range(3 * (AHEAD_BATCHES + 1))}
    assert len(places) == AHEAD_BATCHES + 1


def test_the_exception_of_the_thread_is_raised_in_its_turn_and_again(index, monkeypatch):
    sampler, start = sampler_of(index)
    draw = sampler.draw

    def fail(epoch, step):
        if (epoch, step) == (1, 0):
            raise OpenError("the third batch")
        return draw(epoch, step)

    monkeypatch.setattr(sampler, "draw", fail)
    with ReadAhead(index, ShardReader(index), sampler, start) as ahead:
        for _ in range(2):
            ahead.next()
        for _ in range(2):
            with pytest.raises(OpenError, match=r"^the third batch$"):
                ahead.next()


def test_closing_ends_a_thread_that_waits_for_a_buffer_and_closes_its_files(index):
    with ahead_of(index) as ahead:
        ahead.next()
        assert open_tars(index.root)
        assert len(threads()) == 1
    assert not threads()
    assert not open_tars(index.root)
    with pytest.raises(RuntimeError, match="the reader is closed"):
        ahead.next()


def test_closing_ends_a_thread_that_reads_after_a_chunk(index, monkeypatch):
    monkeypatch.setattr("pipeline.load.ahead.CHUNK_IMAGES", 2)
    sampler, start = sampler_of(index)
    reader = WaitingReader(index)
    ahead = ReadAhead(index, reader, sampler, start).__enter__()
    assert reader.reading.wait(PATIENCE_S)
    threading.Timer(0.05, reader.go_on.set).start()
    ahead.__exit__()
    assert not threads()
    assert sampler.drawn == 1
    with pytest.raises(RuntimeError, match="the reader is closed"):
        raise ahead._thread.ready.get_nowait()


def test_closing_ends_the_wait_of_another_thread(index):
    reader, found = WaitingReader(index), []

    def wait():
        try:
            ahead.next()
        except RuntimeError as error:
            found.append(str(error))

    with ahead_of(index, reader) as ahead:
        assert reader.reading.wait(PATIENCE_S)
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        threading.Timer(0.05, reader.go_on.set).start()
        time.sleep(0.02)  # so that it waits, if possible
    waiting.join(PATIENCE_S)
    assert found == ["the reader is closed"]


def test_a_reader_that_is_not_closed_ends_when_it_is_garbage(index):
    ahead = ahead_of(index).__enter__()
    ahead.next()
    del ahead
    gc.collect()
    assert not threads()
    assert not open_tars(index.root)


def test_waiting_for_a_batch_can_be_interrupted(index):
    reader = WaitingReader(index)
    with ahead_of(index, reader) as ahead:
        assert reader.reading.wait(PATIENCE_S)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            ahead.next()
        reader.go_on.set()
    assert not threads()


def test_an_interpreter_ends_although_a_reader_is_open(index):
    program = (
        "import sys; from pipeline.load.ahead import ReadAhead; from shards.index import ShardIndex, ShardReader\n"
        "from pipeline.load.sampler import IdentitySampler, LoaderState\n"
        "index = ShardIndex(sys.argv[1])\n"
        "start = LoaderState(seed=0, global_batch=4, views=2, index_digest='')\n"
        "sampler = IdentitySampler(index.first, index.count, start)\n"
        "ahead = ReadAhead(index, ShardReader(index), sampler, start).__enter__()\n"
        "print(len(ahead.next().jpegs))"
    )
    command = [sys.executable, "-c", program, str(index.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert (done.stdout, done.stderr) == ("8\n", "")


def test_an_interrupted_loader_continues_its_stream_in_another_block(index, monkeypatch):
    """The batch that was being fetched when the signal came may be lost for DALI, but not for the stream."""
    alone = global_batches([batches_of(index, STEPS)])
    loader = Loader(index, batch_size=BATCH, threads=1)
    following, calls = ReadAhead.next, []

    def interrupted(self):
        batch = following(self)
        calls.append(None)
        if len(calls) == 4:  # DALI asks for two batches ahead
            raise KeyboardInterrupt
        return batch

    monkeypatch.setattr(ReadAhead, "next", interrupted)
    with loader:
        batches = [next(loader), next(loader)]
        with pytest.raises(KeyboardInterrupt):
            next(loader)
        with pytest.raises(RuntimeError, match="the loader is closed"):
            next(loader)
    with loader:
        batches += [next(loader) for _ in range(STEPS - 2)]
    assert_same(global_batches([batches]), alone)
