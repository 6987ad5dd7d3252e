#!/bin/bash
#SBATCH --job-name=lrfr-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
# Trains on several machines. Before the time limit it saves a checkpoint; submitted again, or requeued, it goes on.
# What the network between the machines needs: docs/guide/distributed.md.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
. .venv/bin/activate
export LRFR_DATA="${LRFR_DATA:-/shared/lrfr}"
# not head, which ends before scontrol has written everything: with pipefail that would end the job
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)

# srun of SLURM 22.05 and later does not inherit --cpus-per-task from the job
srun --cpus-per-task "$SLURM_CPUS_PER_TASK" torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-backend c10d --rdzv-endpoint "$host:29500" --rdzv-id "$SLURM_JOB_ID" \
    cli.py train --recipe modern --shard-head --loader-threads 6 --out "$LRFR_DATA/runs/first"
