#!/bin/bash
# Submits everything: the parts of a set, its index when they are done, and training when that is done.
set -euo pipefail
cd "$(dirname "$0")/../.."  # the checkout

# a job whose predecessor fails is cancelled; without that it would wait for ever
after=(sbatch --parsable --kill-on-invalid-dep=yes)
build=$(sbatch --parsable examples/slurm/build.sh)
finish=$("${after[@]}" --dependency="afterok:${build%%;*}" examples/slurm/finish.sh)
train=$("${after[@]}" --dependency="afterok:${finish%%;*}" examples/slurm/train.sh)
echo "submitted: build $build, finish $finish, train $train"
