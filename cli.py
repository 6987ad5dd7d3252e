"""lrfr: low-resolution face recognition, from VGGFace2 to a score."""

from __future__ import annotations

import click

from commands.audit import audit
from commands.bench import bench
from commands.build_shards import build_shards
from commands.calibrate import calibrate
from commands.demo_data import demo_data
from commands.doctor import doctor
from commands.embed import embed
from commands.export import export
from commands.fetch import fetch
from commands.group import Commands, check_alone
from commands.inspect import inspect
from commands.landmarks import landmarks
from commands.search import search
from commands.train import train
from commands.verify import verify

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
SHARED = ("train", "bench", "embed", "audit")  # among the processes of torchrun


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(package_name="lrfr")
@click.option("--debug", is_flag=True, envvar="LRFR_DEBUG", help="Show the traceback of every error. [LRFR_DEBUG=1]")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Train and score networks for low-resolution face recognition.

    Paths default to folders under $LRFR_DATA (default: data). From VGGFace2 to a score:

    \b
      lrfr build-shards
      lrfr train --recipe quick
      lrfr bench all --report report
    """
    if ctx.invoked_subcommand not in SHARED:
        check_alone(str(ctx.invoked_subcommand))


for command in (
    demo_data,
    fetch,
    landmarks,
    build_shards,
    verify,
    inspect,
    train,
    audit,
    bench,
    embed,
    search,
    calibrate,
    export,
    doctor,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
