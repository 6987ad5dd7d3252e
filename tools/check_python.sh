#!/usr/bin/env bash
# Checks the toolkit on another Python: installs the tested versions into a temporary environment, imports every
# module, prints the help of every command, builds, trains, scores, and runs the tests of processes and signals.
#
# Usage: tools/check_python.sh python3.12
# Exit codes: 0 it works; 1 it does not; 75 it cannot be checked here.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD name=$1

works() { "$1" -c '' 2>/dev/null; }
for python in "$name" "$HOME/.pyenv/versions/${name#python}".*/"bin/$name" ""; do
  if [ -z "$python" ] || works "$python"; then break; fi
done
if [ -z "$python" ]; then
  echo "$name: not checked: there is no such interpreter"
  exit 75
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
PATH=$folder/venv/bin:$PATH
install() { python -m pip install --disable-pip-version-check --no-cache-dir --no-compile --constraint constraints.txt "$@"; }
echo "$name: installing PyTorch and the other packages (without a CPU build of PyTorch on the index: 7 GB in $folder)"
if ! install torch; then
  echo "$name: not checked: PyTorch cannot be installed"
  exit 75
fi
install --editable '.[dev]'

cd "$folder"
export LRFR_DATA=$folder/data
python - <<'CODE'
import importlib
import pkgutil

import click
from click.testing import CliRunner

import cli

modules = 0
for package in ("shards", "pipeline", "model", "benchmarks", "commands"):
    path = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(path, f"{package}.", onerror=lambda name: importlib.import_module(name)):
        importlib.import_module(module.name)
        modules += 1


def check_help(command, words):
    result = CliRunner().invoke(cli.main, [*words, "--help"])
    assert result.exit_code == 0, result.output
    for name, child in command.commands.items() if isinstance(command, click.Group) else ():
        check_help(child, [*words, name])


check_help(cli.main, [])
assert modules > 100, modules
print(f"{modules} modules imported")
CODE
lrfr demo-data --identities 8 --images 4
lrfr build-shards --images-per-shard 12
lrfr verify --full
lrfr train --backbone spherenet4 --batch-size 8 --steps 4 --log-every 1
lrfr bench qmul
cd "$repository"
python -m pytest -q -p no:cacheprovider tests/test_interruption.py tests/test_errors.py tests/pipeline/test_executors.py tests/pipeline/test_signals.py
echo "$name: works"
