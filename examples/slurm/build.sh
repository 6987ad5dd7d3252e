#!/bin/bash
#SBATCH --job-name=lrfr-shards
#SBATCH --array=1-8
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --requeue
# Builds one part of a shard set. A task that was preempted is requeued and goes on. See docs/scale.md.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"  # the checkout, on a file system that all machines share
. .venv/bin/activate
export LRFR_DATA="${LRFR_DATA:-/shared/lrfr}"

python cli.py build-shards --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
