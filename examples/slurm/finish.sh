#!/bin/bash
#SBATCH --job-name=lrfr-finish
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=01:00:00
# Makes index and manifest if the last part could not, and checks the set.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
. .venv/bin/activate
export LRFR_DATA="${LRFR_DATA:-/shared/lrfr}"

python cli.py build-shards --finish
python cli.py verify
