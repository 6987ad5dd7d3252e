"""ShardPrefetch: has the tars of a set in an object store fetched before the reader needs them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import numpy as np

from pipeline.load.local_processes import local_processes
from pipeline.load.sampler import LoaderState, Sampler
from pipeline.progress import Progress
from shards.cache_folder import size_text
from shards.index import ShardIndex
from shards.messages import print_stderr

STEPS_AHEAD = 500  # batches; where the whole set fits, all of its tars are wanted long before
BUDGET = 0.9  # of the room; the rest is for what was used last
LOOK_S = 1.0  # between two looks at what has arrived


class ShardPrefetch:
    """Follows a sampler ahead of the reader, in a thread; a context manager.

    A batch is a pure function of its number, so the tars of the next ones are known: those that are needed first are
    fetched first. If the cache does not hold the whole set, only as many are wanted ahead as fit beside those in use, for
    the processes of a machine together, so that none is deleted before it is read.

    Attributes:
        budget: most bytes of tars in use and wanted ahead; None if all of the set's fit.
    """

    def __init__(self, index: ShardIndex, sampler: Sampler, start: LoaderState, *, report: bool) -> None:
        """
        Args:
            index: of a set in a store.
            start: the position of the first batch.
            report: print on stderr how the first tars arrive, and that the cache is too small for random order.
        """
        assert index.cache
        self._cache, self._index, self._start, self._report = index.cache, index, start, report
        self._sampler = copy.copy(sampler)  # one of random order keeps the order of one epoch
        room = self._cache.folder.size - self._cache.other_bytes
        self.budget = None if self._cache.holds_all else int(BUDGET * room) // local_processes()
        # number of the last known batch of each tar
        self._needed_until = np.zeros(len(self._cache.tar_bytes), np.int64)
        with_images = np.zeros(len(self._needed_until), bool)
        with_images[index.shard] = True
        self._sizes = np.where(with_images, self._cache.tar_bytes, 0)  # no others are needed
        self._moved = threading.Condition()
        self._read = 0  # batches
        self._stopped = threading.Event()
        self._reporter: threading.Thread | None = None

    def __enter__(self) -> ShardPrefetch:
        if self._report and self.budget is not None and not self._start.window:
            self._warn()
        if self._report:
            self._reporter = self._start_thread(self._report_arrivals, self._sizes.copy(), self._cache.missing())
        self._start_thread(self._follow)
        return self

    def __exit__(self, *error: object) -> None:
        with self._moved:
            self._stopped.set()
            self._moved.notify_all()
        if self._reporter:
            self._reporter.join(LOOK_S)  # its last line comes before what the command prints next

    def _start_thread(self, work: Callable[..., None], *arguments: np.ndarray) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, name="prefetch", daemon=True)
        thread.start()
        return thread

    def advance(self) -> None:
        """Another batch has been read."""
        with self._moved:
            self._read += 1
            self._moved.notify_all()

    def _follow(self) -> None:
        at, number = self._start, 0
        while self.budget is not None or not self._needed_until[self._sizes > 0].all():
            number += 1
            shards = self._shards_of(at)
            known = self._needed_until[shards] > self._read
            self._want(shards[known], number)
            for shard in shards[~known]:
                with self._moved:
                    self._moved.wait_for(lambda: self._stopped.is_set() or self._fits(number, shard))  # noqa: B023
                if self._stopped.is_set():
                    return
                self._want(shard[None], number)
            at = self._sampler.after(at)

    def _shards_of(self, at: LoaderState) -> np.ndarray:
        """(n,) the shards of a batch."""
        return np.unique(self._index.shard[self._sampler.draw(at.epoch, at.step).rows])

    def _want(self, shards: np.ndarray, number: int) -> None:
        self._needed_until[shards] = number
        self._cache.want(shards, number)

    def _fits(self, number: int, shard: int) -> bool:
        """True if a tar of a batch may be wanted already."""
        if self.budget is None or number <= self._read + 1:
            return number <= self._read + STEPS_AHEAD
        needed = self._needed_until > self._read
        needed[shard] = True
        return int(self._sizes[needed].sum()) <= self.budget

    def _warn(self) -> None:
        cache = self._cache
        print_stderr(
            f"{cache.store}: {size_text(cache.needed_bytes)}, but its cache {cache.folder.path} may hold"
            f" {size_text(cache.folder.size)}: in random order every batch needs tars from everywhere, which are fetched"
            f" again and again. --cache-size {-(-cache.needed_bytes // 10**6)}M would hold all; or read in order, with"
            " --order sequential"
        )

    def _report_arrivals(self, sizes: np.ndarray, missing: np.ndarray) -> None:
        """Shows how the tars arrive: all, or where the cache is smaller those of the first batch, until it is read."""
        if self.budget is not None:
            others = np.ones(len(self._sizes), bool)
            others[self._shards_of(self._start)] = False
            sizes[others] = 0
        total, there = int(sizes.sum()), int(sizes[~missing].sum())
        if there >= total:
            return
        with Progress(f"{self._cache.store} to {self._cache.folder.path}", total, "B", live=False) as progress:
            progress.skip(there)
            while there < total and not self._stopped.wait(LOOK_S):
                before, there = there, int(sizes[~self._cache.missing()].sum())
                progress.update(there - before)
                if self.budget is not None and self._read:
                    break
