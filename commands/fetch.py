"""fetch: downloads LFW, XQLFW and the landmark model."""

from __future__ import annotations

from typing import Any

import click

from commands.group import CommandError, interruptible
from commands.options import data

NAMES = ("lfw", "xqlfw", "landmarker", "vggface2", "scface", "qmul", "tinyface")
_KEPT = "what has arrived is kept: run the same command to continue"


class MirrorUrl(click.ParamType):
    """The address of a folder on an HTTP server."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from pipeline.fetch.http_request import is_web_address

        if not is_web_address(value):
            self.fail(f"{value!r}: expected the address of a folder, such as https://server/faces", param, ctx)
        return str(value)


@click.command(short_help="Download LFW, XQLFW or the landmark model.")
@click.argument("names", metavar="NAME...", type=click.Choice(NAMES), nargs=-1, required=True)
@click.option(
    "--mirror",
    "mirrors",
    type=MirrorUrl(),
    multiple=True,
    envvar="LRFR_MIRROR",
    help="Folder on your own HTTP server with lfw.tgz, pairs.txt, xqlfw.zip, xqlfw_pairs.txt, face_landmarker.task;"
    " tried before the official addresses; may be repeated. [LRFR_MIRROR]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    help="Seconds without data after which a connection is closed.",
)
def fetch(names: tuple[str, ...], mirrors: tuple[str, ...], timeout: float) -> None:
    """Download lfw, xqlfw (images and pairs) or landmarker (MediaPipe's model) into $LRFR_DATA.

    For the other data sets, print where they come from. A file is renamed to its final name only if its SHA-256 is right.
    An interrupted download continues when the same command is run again. The variables http_proxy, https_proxy and
    no_proxy apply.
    """
    from pipeline.fetch.assets import UNAVAILABLE
    from pipeline.fetch.download import Sources
    from pipeline.fetch.places import fetch as fetch_one

    if unavailable := [name for name in names if name in UNAVAILABLE]:
        raise CommandError("; ".join(UNAVAILABLE[name].format(data=data()()) for name in unavailable))
    with interruptible(lambda: _KEPT):
        for name in dict.fromkeys(names):
            for line in fetch_one(name, data()(), Sources(mirrors=mirrors, timeout_s=timeout)):
                click.echo(line)
