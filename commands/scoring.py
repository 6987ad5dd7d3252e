"""Scores networks on benchmarks, prints and saves the results: what the commands of ``bench`` share."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.compare import MAX_COMPARED, check_names, show
from commands.group import CommandError, expected, line_of
from commands.landmark_finder import landmark_finder
from commands.network import open_engine, warn_of_guess
from commands.options import check_alignment, is_auto
from commands.outputs import saved_results
from commands.provenance import network_facts
from pipeline.degradation.presets import Degradation
from shards.messages import print_stderr

if TYPE_CHECKING:
    from benchmarks.scoring.protocols import Protocol
    from benchmarks.scoring.results import Result


def score(
    names: list[str],
    read: Callable[[str], Protocol],
    *,
    network: tuple[Path, ...] = (),
    json_file: Path | None,
    report: Path | None,
    no_faces: bool = False,
    labels: tuple[str, ...] = (),
    **options: Any,
) -> dict[str, Exception]:
    """Scores networks on benchmarks, and compares them; a failure of one does not stop the others.

    Args:
        read: name -> protocol.
        network: path of each network; none for the newest checkpoint.
        labels: names of the networks; none, or one for each.
        options: of ``score_network``.

    Returns:
        The error of each benchmark that could not be scored.

    Raises:
        CommandError: some of several networks could not be opened.
    """
    from benchmarks.scoring.comparison import Network

    paths: tuple[Path | None, ...] = network or (None,)
    if len(paths) > MAX_COMPARED:
        raise click.UsageError(f"--network: {len(paths)} networks, expected at most {MAX_COMPARED}")
    check_names(labels, len(paths))
    if no_faces and report is None:
        raise click.UsageError("--no-faces: only a report shows faces; add --report, or leave it out")
    failures: dict[str, Exception] = {}
    scored, unusable = [], 0
    protocols = functools.cache(read)
    with saved_results(json_file, report, len(names) * len(paths), faces=not no_faces) as save:
        for path, label in itertools.zip_longest(paths, labels):
            try:
                results, failed = score_network(names, protocols, save, network=path, label=label, **options)
            except Exception as error:
                if len(paths) == 1 or not expected(error):
                    raise
                unusable += 1
                print_stderr(f"{path}: not scored: {line_of(error)}")
                continue
            failures |= failed
            if results:
                found = {result.benchmark: result for result in results}
                scored.append(Network(path=Path(results[0].checkpoint["path"]), results=found))
    if len(scored) > 1:
        show(scored)
    if unusable:
        raise CommandError(f"{unusable} of {len(paths)} networks could not be scored, see above")
    return failures


def score_network(
    names: list[str],
    read: Callable[[str], Protocol],
    save: Callable[[Result], None],
    *,
    label: str | None,
    allow_missing: bool,
    degrade: Degradation | None = None,
    **options: Any,
) -> tuple[list[Result], dict[str, Exception]]:
    """Scores a network on benchmarks; a failure of one does not stop the others.

    Args:
        read: name -> protocol.
        save: is called with each result.
        label: name of the network, if the user gave one.
        degrade: how images are degraded to sizes; None: by the bicubic filter.
        options: of ``open_engine``.

    Returns:
        The results, and the error of each benchmark that could not be scored.
    """
    from benchmarks.engine.runner import run
    from benchmarks.report.tables import result_text

    results: list[Result] = []
    failures: dict[str, Exception] = {}
    with open_engine(**options) as (engine, loaded, facts):
        facts |= network_facts(loaded, label, facts["device"])
        facts |= {"degradation": degrade.label} if degrade else {}
        checked = False
        for name in names:
            try:
                protocol = read(name)
                protocol = protocol.degraded(degrade) if degrade else protocol
                checked = checked or warn_of_guess(loaded, protocol, facts["device"])
                result = run(protocol, engine, checkpoint=facts, allow_missing=allow_missing)
            except Exception as error:
                if not expected(error):
                    raise
                failures[name] = error
                continue
            results.append(result)
            save(result)
            click.echo(result_text(result) + ("\n" if len(names) > 1 else ""))
    return results, failures


def score_own(
    name: str,
    read: Callable[..., Protocol],
    folders: list[Path],
    *,
    landmarks: tuple[Path, ...],
    aligned: str | None,
    sizes: tuple[int, ...],
    **options: Any,
) -> None:
    """Scores a user's own benchmark.

    Args:
        read: ``landmarks``, ``aligned`` and ``sizes`` -> protocol.
        folders: of the images.
        options: of ``score``.
    """
    check_alignment(landmarks, aligned)
    finder = landmark_finder(folders, no_cache=options["no_cache"], max_pixels=options["max_pixels"])
    with finder as find:
        tables = find if is_auto(landmarks) else landmarks
        failures = score([name], lambda _: read(landmarks=tables, aligned=aligned, sizes=sizes), **options)
    if failures:
        raise failures[name]
