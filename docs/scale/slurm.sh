#!/bin/bash
# Pre-train on several nodes of a Slurm cluster:
#   sbatch docs/scale/slurm.sh yamls/pretrain.yaml output=/shared/runs 'data.unpaired.local=$TMPDIR/unpaired' ...
# The launcher expands variables in the arguments on each node; hence the single quotes.
#SBATCH --job-name=maskedclip
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# One launcher a node (--ntasks-per-node=1), which starts a rank for each of its GPUs.
# --requeue and --open-mode=append: after the failure of a node the same command goes on, and so does its output.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT

# --kill-on-bad-exit: when the launcher of one node has ended with an error, those of the others are ended too.
# shellcheck disable=SC2016  # expanded on the nodes
srun --kill-on-bad-exit=1 bash -c 'exec composer -n "$SLURM_GPUS_ON_NODE" \
  --world_size "$((SLURM_NNODES * SLURM_GPUS_ON_NODE))" --node_rank "$SLURM_NODEID" \
  --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" train.py "$@"' - "$@"
