"""The exclusion list that an audit proposes to ``build-shards --exclude``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from benchmarks.audit.findings import (
    BENCHMARK_PERSON,
    BENCHMARK_PHOTOGRAPH,
    KINDS,
    MIN_SUPPORT,
    SAME_PERSON,
    SAME_PHOTOGRAPH,
    SURE,
    WRONG_LABEL,
    Finding,
)
from pipeline.build.exclusions import exclusion_line
from shards.files import write_bytes
from shards.messages import counted, printable

REASONS = {
    WRONG_LABEL: f"wrong labels: a probability of at least {SURE}, and {MIN_SUPPORT} or more other images to compare with",
    SAME_PERSON: "identities that look like one person: merge their folders, or write one of the two names in a line",
    SAME_PHOTOGRAPH: "one photograph under two names: the copy that fits its name worse",
    BENCHMARK_PHOTOGRAPH: "photographs of a benchmark",
    BENCHMARK_PERSON: "people of a benchmark: all their images",
}
_MARK = b"# unchanged since audit wrote it: "


def is_as_written(path: Path) -> bool:
    """Returns True if a file is an exclusion list that nobody has edited. Raises: OSError: it cannot be read."""
    lines, mark, stated = path.read_bytes().rpartition(_MARK)
    return bool(mark) and lines + _mark(lines) == lines + mark + stated


def _mark(lines: bytes) -> bytes:
    return _MARK + hashlib.sha256(lines).hexdigest()[:16].encode() + b"\n"


def write_exclusions(findings: Sequence[Finding], keys: pa.Array, identities: pa.Array, path: Path) -> list[str]:
    """Writes ``exclude.txt``: an image or an identity a line, with the reasons as comments.

    Returns:
        Names that no line can stand for.
    """
    lines, lost = ["# What to leave out of training: build-shards --exclude THIS_FILE. Read it first."], []
    for kind in KINDS:
        found = [finding for finding in findings if finding.kind == kind]
        names = dict.fromkeys(_names(found, keys, identities))
        written = {name: exclusion_line(name) for name in names}
        if found:
            lines += ["", f"# {REASONS[kind]} ({counted(len(names), 'line')} for {counted(len(found), 'finding')})"]
        if kind == SAME_PERSON:
            lines += [_pair(finding, identities) for finding in found]
        lines += [line for line in written.values() if line is not None]
        lost += [name for name, line in written.items() if line is None]
    path.parent.mkdir(parents=True, exist_ok=True)
    data = ("\n".join(lines) + "\n\n").encode()
    write_bytes(path, data + _mark(data))
    return lost


def _names(findings: Sequence[Finding], keys: pa.Array, identities: pa.Array) -> Iterator[str]:
    for finding in findings:
        if finding.excluded:
            yield (identities[finding.identity] if finding.row is None else keys[finding.row]).as_py()


def _pair(finding: Finding, identities: pa.Array) -> str:
    """A comment, because only people can say which of two names to keep."""
    names = (identities[finding.identity].as_py(), identities[finding.other_identity].as_py())
    return "# " + printable(" ".join(exclusion_line(name) or name for name in names))
