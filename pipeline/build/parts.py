"""Parts of a build: static shares of its shards, for machines that do not communicate."""

from __future__ import annotations

import dataclasses
import re

from shards.arguments import check_whole
from shards.errors import ShardError

_PART = re.compile(r"([0-9]{1,6})/([0-9]{1,6})", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Part:
    """Part ``number`` of ``count``, from 1: every ``count``-th shard."""

    number: int
    count: int

    def __post_init__(self) -> None:
        """Raises: TypeError, ShardError: a number has a wrong type or value."""
        for name in ("number", "count"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name)))
        if not 1 <= self.number <= self.count:
            raise ShardError(f"part {self}: parts are numbered from 1 to their count, as in 1/8 to 8/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def share(self, shards: int) -> range:
        """The shards of this part, of ``shards`` in all."""
        return range(self.number - 1, shards, self.count)

    def of(self, shard: int) -> Part:
        """The part to which a shard belongs."""
        return Part(shard % self.count + 1, self.count)


def parse_part(text: str) -> Part:
    """Parses ``I/N``.

    Raises:
        ShardError: it is not ``NUMBER/COUNT``.
    """
    match = _PART.fullmatch(text)
    if not match:
        raise ShardError(f"{text[:40]!r} is not a part I/N, such as 1/8")
    return Part(int(match[1]), int(match[2]))


WHOLE = Part(1, 1)
"""All shards."""
