"""ReadAhead: a thread that reads and checks the JPEGs of the next batches before DALI asks for them."""

from __future__ import annotations

import dataclasses
import queue
import threading
import weakref

import numpy as np

from pipeline.images.decode import ImageError, decode_bytes
from pipeline.load.sampler import Draw, LoaderState, Sampler
from pipeline.spec import spec_of
from shards.errors import ShardError
from shards.index import ShardIndex, ShardReader
from shards.schema import shard_file

AHEAD_BATCHES = 2  # read and waiting for DALI, which itself decodes some ahead
CHUNK_IMAGES = 64  # read between two looks at whether to stop; from a cold disk, together
CLOSE_S = 5.0  # patience with a read that a file system does not answer
CLOSED = "the reader is closed"
_JPEG_END = (0xFF, 0xD9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadBatch:
    """The JPEGs of one rank's share of a batch.

    Attributes:
        draw: what the sampler drew for it.
        jpegs: (V * b, longest) uint8, padded with zeros; valid until the next batch is asked for.
    """

    draw: Draw
    jpegs: np.ndarray
    buffer: np.ndarray = dataclasses.field(repr=False)  # the memory of ``jpegs``, to be used again


class _Thread(threading.Thread):
    """Reads batches into free buffers, until a buffer is None."""

    def __init__(self, index: ShardIndex, reader: ShardReader, sampler: Sampler, start: LoaderState) -> None:
        super().__init__(name="read-ahead", daemon=True)
        self._index, self._reader, self._sampler, self._at = index, reader, sampler, start
        # SimpleQueue: its put may be called by a finalizer at any time
        self.free: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self.ready: queue.SimpleQueue[ReadBatch | BaseException] = queue.SimpleQueue()
        self._stop_requested = threading.Event()

    def run(self) -> None:
        """Puts one batch after the other into ``ready``, and last the exception that ended it."""
        try:
            while (buffer := self.free.get()) is not None:
                draw = self._sampler.draw(self._at.epoch, self._at.step)
                jpegs = self._read(draw.rows.ravel(), buffer)
                if jpegs is None:
                    return
                self.ready.put(ReadBatch(draw=draw, jpegs=jpegs, buffer=buffer))
                self._at = self._sampler.after(self._at)
        except BaseException as error:  # noqa: BLE001 - the consumer raises it
            self.ready.put(error)
        finally:
            self._reader.close()

    def _read(self, rows: np.ndarray, buffer: np.ndarray) -> np.ndarray | None:
        """The (N, longest) JPEGs of ``rows``, padded with zeros, in ``buffer``; None if it is to stop."""
        sizes = self._index.size[rows].astype(np.int64)
        longest = int(sizes.max())
        for start in range(0, len(rows), CHUNK_IMAGES):
            if self._stop_requested.is_set():
                return None
            self._reader.padded(rows[start : start + CHUNK_IMAGES], buffer[start * longest :], longest)
        jpegs = buffer[: len(rows) * longest].reshape(len(rows), longest)
        ends = jpegs[np.arange(len(rows))[:, None], sizes[:, None] - [2, 1]]
        uncertain = rows[(ends != _JPEG_END).any(1)]  # DALI fills up an image that is cut, without an error
        check_images(self._index, self._reader, uncertain)
        return jpegs

    def stop(self) -> None:
        """Stops the thread and waits for it; called once."""
        self._stop_requested.set()
        self._reader.cancel()
        self.free.put(None)  # it may be waiting for a buffer
        self.ready.put(RuntimeError(CLOSED))  # another thread may be waiting for a batch
        if self is not threading.current_thread():  # where garbage is collected is any thread
            self.join(CLOSE_S)


class ReadAhead:
    """Follows a sampler and reads its batches ahead, in order, in a thread of its own; a context manager.

    The thread has a fixed number of buffers and waits when all are full. It is the only one that calls
    ``sampler.draw`` and uses ``reader``. It ends, and ``reader`` is closed, when the block ends, when the object is
    garbage and when the interpreter exits.

    Args:
        reader: reads the images of ``index``.
        start: the position of the first batch.
    """

    def __init__(self, index: ShardIndex, reader: ShardReader, sampler: Sampler, start: LoaderState) -> None:
        self._arguments = (index, reader, sampler, start)
        images = start.global_batch // sampler.world_size * start.views
        self._bytes = images * int(index.size.max())

    def __enter__(self) -> ReadAhead:
        self._thread = thread = _Thread(*self._arguments)  # it does not keep ``self`` alive
        self._lent: np.ndarray | None = None
        for _ in range(AHEAD_BATCHES + 1):  # one is being consumed
            thread.free.put(np.empty(self._bytes, np.uint8))
        self._stop = weakref.finalize(self, thread.stop)
        thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def next(self) -> ReadBatch:
        """The next batch; the memory of the one before is given back.

        Raises:
            ShardError: an image is damaged or of another size, or a shard is missing.
            BaseException: whatever else ended the thread.
            RuntimeError: outside the block, or the block has ended meanwhile, in another thread.
        """
        if not self._stop.alive:
            raise RuntimeError(CLOSED)
        lent, self._lent = self._lent, None
        if lent is not None:
            self._thread.free.put(lent)
        found = self._thread.ready.get()
        if isinstance(found, BaseException):
            self._thread.ready.put(found)  # the thread has ended; a second call must not wait for it
            raise found
        self._lent = found.buffer
        return found


def check_images(index: ShardIndex, reader: ShardReader, rows: np.ndarray) -> None:
    """Raises ShardError for the first of the (N,) ``rows`` whose image is damaged or of another size than the set's."""
    side = spec_of(index.manifest).size
    for row in rows.tolist():
        try:
            height, width = decode_bytes(reader.image(row)).shape[:2]
            problem = "" if height == width == side else f"has {width}x{height} px, expected {side}"
        except ImageError as error:
            problem = f"cannot be used: {error}"
        if problem:
            path = f"{index.place}/{shard_file(int(index.shard[row]), 'tar')}"
            raise ShardError(f"{path}: image {index.key(row)} {problem}; build the shard set again")
