"""doctor: checks the machine and the data, and says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.group import CommandError, interruptible
from commands.options import PATH, data, pick_device
from commands.outputs import JSON_FILE
from shards.messages import printable

if TYPE_CHECKING:
    from commands.diagnosis.findings import Section


@click.command(short_help="Check the machine and the data, and say what to do.")
@click.argument("root", type=PATH, default=data())
@click.option("--network", type=PATH, help="Check this network instead: does it get the preprocessing that it expects?")
@click.option("--preprocessing", metavar="NAME|FILE.toml", help="Preprocessing of --network. [default: as for bench]")
@click.option("--json", "json_file", type=JSON_FILE, help="Also write the findings to this file.")
def doctor(root: Path, network: Path | None, preprocessing: str | None, json_file: Path | None) -> None:
    """Check Python, libraries, GPU and disks, and the data sets, shard sets and runs in ROOT ($LRFR_DATA).

    Every finding is ok, a note, a warning (warn) or a failure (FAIL: something cannot work), with what to do. Images
    are counted by listing; 200 of each data set are opened. Nothing is written or downloaded. The exit code is 1 if there
    is a failure.

    With --network, other ranges, colour orders and templates are tried on 80 pairs of a benchmark in ROOT, or on generated
    faces, to find the preprocessing that separates people best.
    """
    if preprocessing and network is None:
        raise click.UsageError("--preprocessing is for --network; name a network, or leave it out")
    from commands.diagnosis.findings import Level, lines, summary, to_dict
    from commands.diagnosis.page import sections

    levels, record = [], []
    with interruptible():
        for section in sections(root, data()()) if network is None else [network_section(network, preprocessing, root)]:
            click.echo(printable(section.title))
            found = []
            for finding in section.findings:
                found.append(finding)
                for line in lines(finding):
                    click.echo(line)
            levels += [finding.level for finding in found]
            record.append(to_dict(section.title, found))
        click.echo(f"\n{summary(levels)}")
        if json_file:
            from shards.files import write_bytes  # needs a library

            write_bytes(json_file, (json.dumps(record, indent=1) + "\n").encode())
    if Level.FAIL in levels:
        raise CommandError("something cannot work: see FAIL above")


def network_section(path: Path, preprocessing: str | None, root: Path) -> Section:
    """The section about a network."""
    from commands.diagnosis.findings import Section
    from commands.diagnosis.network import network_findings
    from commands.network import open_network

    network = open_network(path, preprocessing)
    return Section(title=f"Network {path}", findings=network_findings(network, root, pick_device(None)))
