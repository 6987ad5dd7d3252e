#!/bin/bash
# Submits everything: the parts of a set, its index when they are done, and training when that is done.
set -euo pipefail
cd "$(dirname "$0")/../.."  # the checkout

build=$(sbatch --parsable examples/slurm/build.sh)
finish=$(sbatch --parsable --dependency="afterok:${build%%;*}" examples/slurm/finish.sh)
train=$(sbatch --parsable --dependency="afterok:${finish%%;*}" examples/slurm/train.sh)
echo "submitted: build $build, finish $finish, train $train"
