#!/usr/bin/env bash
# Trains a recipe on a Cloud TPU VM, one host or a whole pod slice, and deletes nothing: the machine stays until you delete it.
#
#   experiments/launch/tpu_vm.sh NAME ZONE TYPE RECIPE [ARGUMENTS of recjax train]
#   experiments/launch/tpu_vm.sh recjax-1 us-west4-a v5litepod-16 sasrec_ml1m --run /mnt/shared/runs/sasrec_ml1m
#
# RECJAX_DATA, if set, must be a path on the hosts; RUNTIME names another software version than that of v5e. Running it
# again reuses the machine and goes on with the run.
set -euo pipefail
(($# >= 4)) || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
name=$1 zone=$2 type=$3
shift 3

on_all_hosts() { gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "$1"; }

gcloud compute tpus tpu-vm describe "$name" --zone "$zone" >/dev/null 2>&1 ||
    gcloud compute tpus tpu-vm create "$name" --zone "$zone" --accelerator-type "$type" --version "${RUNTIME:-v2-alpha-tpuv5-lite}"

source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
git archive --format tar.gz --output "$source/recjax.tar.gz" HEAD
gcloud compute tpus tpu-vm scp "$source/recjax.tar.gz" "$name:" --zone "$zone" --worker=all

on_all_hosts "mkdir -p recjax && tar xzf recjax.tar.gz -C recjax && cd recjax && python3 -m venv .venv &&
    .venv/bin/pip install --quiet -r requirements-tpu.txt && .venv/bin/pip install --quiet --no-deps ."
on_all_hosts "cd recjax && RECJAX_DATA=$(printf %q "${RECJAX_DATA:-}") exec .venv/bin/recjax train $(printf '%q ' "$@")"
