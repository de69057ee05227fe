#!/usr/bin/env bash
# Trains a recipe on TPU slices of a GKE cluster, through xpk (https://github.com/AI-Hypercomputer/xpk):
#
#   CLUSTER=mine PROJECT=mine ZONE=us-west4-a IMAGE=REGION-docker.pkg.dev/mine/images/recjax:1 \
#       experiments/launch/xpk.sh NAME TYPE RECIPE [ARGUMENTS of recjax train]
#   ... experiments/launch/xpk.sh recjax-1 v5litepod-16 sasrec_ml1m --run /shared/runs/sasrec_ml1m
#
# IMAGE is built from the Dockerfile here. STORAGE, if set, names a file store that `xpk storage` knows, mounted in all
# pods: runs, data and the cache belong there. A slice that is lost is started again, RESTARTS times, and goes on.
set -euo pipefail
(($# >= 3)) || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
name=$1 type=$2
shift 2

options=()
[[ -z ${STORAGE:-} ]] || options=(--storage "$STORAGE")
exec xpk workload create \
    --cluster "${CLUSTER:?name of the cluster}" --project "${PROJECT:?}" --zone "${ZONE:?}" \
    --workload "$name" --tpu-type "$type" --num-slices "${SLICES:-1}" --max-restarts "${RESTARTS:-10}" \
    --docker-image "${IMAGE:?image built from experiments/launch/Dockerfile}" ${options[@]+"${options[@]}"} \
    --command "exec recjax train $(printf '%q ' "$@")"
