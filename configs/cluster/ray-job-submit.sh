#!/usr/bin/env bash
# Submits a run as a job to a Ray cluster that is there already. The nodes need Ray and the same
# Python as each other (3.11 to 3.13), but not amg: the runtime environment brings it.
#
# Change:  IMAGES, OUT, WORKERS (MIN:MAX), ACCEPT_FAILURES (a share of the images), AMG_CACHE
#          (weights; a folder that all nodes share spares downloads).
# Start:   AMG_WHEEL=https://HOST/amg-0.1.0-py3-none-any.whl RAY_ADDRESS=http://HEAD:8265 \
#              configs/cluster/ray-job-submit.sh
#          (from outside the cluster, first: ssh -N -L 8265:127.0.0.1:8265 HEAD)
# Watch:   ray job logs --follow ID; ray job status ID; amg status s3://BUCKET/masks/
# Stop:    ray job stop ID: SIGTERM, and after RAY_JOB_STOP_WAIT_TIME_S the end.
# Resume:  submit it again, when the first job has ended: committed shards are not done again.
#
# To Ray, all exit codes but 0 are a failed job: 3 (done, but more images failed than ACCEPT_FAILURES
# lets pass), 4 (stopped: submit again), 6 (cannot go on before somebody mends what the log names),
# 2 (bad usage), 5 (the storage failed). `amg status` says how the run is.
#
# Credentials do not belong into the runtime environment, which the dashboard shows: give the nodes
# a role, or variables of their own.
set -euo pipefail

export RAY_ADDRESS="${RAY_ADDRESS:-http://127.0.0.1:8265}"
AMG_WHEEL="${AMG_WHEEL:?the URL by which pip on the cluster finds amg}"
IMAGES="${IMAGES:-s3://BUCKET/images/}"
OUT="${OUT:-s3://BUCKET/masks/}"
WORKERS="${WORKERS:-1:16}"
ACCEPT_FAILURES="${ACCEPT_FAILURES:-0.05}"
AMG_CACHE="${AMG_CACHE:-/tmp/amg-cache}"
ID="amg-$(date +%Y%m%d-%H%M%S)"

ray job submit --no-wait --submission-id "$ID" \
    --runtime-env-json '{
        "pip": ["amg[s3] @ '"$AMG_WHEEL"'"],
        "env_vars": {"AMG_CACHE": "'"$AMG_CACHE"'", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
    }' \
    -- amg run "$IMAGES" --out "$OUT" --engine ray --address auto \
    --workers "$WORKERS" --gpus-per-worker 1 --accept-failures "$ACCEPT_FAILURES"

echo "ray job logs --follow $ID"
