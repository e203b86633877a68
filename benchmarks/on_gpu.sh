#!/usr/bin/env bash
# What the repository measures on one GPU, the most important first. Called again, it goes on where it was stopped.
#
#   benchmarks/on_gpu.sh OUT [N]
#
# N trainings at once beside the two bundles (default: two fewer than cores). OUT gets `results/`, which begins as a copy of the
# repository's, the bundles under `bundles/` (measure each with `python -m ama_core measure`), `bench.json` and a log of each part. Needs
# the data sets in AMA_DATA_DIR. In a copy that is no git checkout, AMA_COMMIT names the commit.
set -uo pipefail
out=$(realpath -m "$1") at_once=${2:-$(($(nproc --all) - 2))} failed=0
cd "$(dirname "$0")/.."
mkdir -p "$out/log"
[ -d "$out/results" ] || cp -r results "$out/results"
export OMP_NUM_THREADS=1
drift="--set lambda_drift=0.001" long="--preset tiny --set max_steps=6000 --seeds 3"
many=$(for _ in $(seq "$at_once"); do echo cuda:0; done | paste -sd,)

bundle() { # RECONSTRUCTION: of CIFAR-10, 20,000 steps
  local folder=$out/bundles/cifar10-$1 how="--preset small --set reconstruction=$1 --set max_steps=20000"
  [ -f "$folder/config.json" ] && return
  [ -f "$folder/run.json" ] && how=--resume
  python3 -m ama_core train cifar10 $how --out "$folder" --no-measure --quiet >> "$out/log/cifar10-$1" 2>&1
}

tables() { # LOG DEVICES ARGUMENT ...
  local log=$1 devices=$2
  shift 2
  python3 -m ama_core benchmark "$@" --devices "$devices" --out "$out/runs" --results "$out/results" --no-validate --quiet \
    >> "$out/log/$log" 2>&1 || failed=1
}

bundle mirrored &
mirrored=$!
bundle plain &
plain=$!
# The AMA row of FashionMNIST in the repository is a CPU's; beside rows of a GPU it should be one of a GPU.
grep -ls '"hardware": "cpu' "$out"/results/table1-ama-fashionmnist-tiny-0cbb4c-s*.json | xargs -r rm
tables fashionmnist "$many" table1 --only ama-fashionmnist $long
tables cifar10 "$many" table1 ablations --only cifar10 $long
tables table2 "$many" table2 --only ama $long
wait "$mirrored" || failed=1
wait "$plain" || failed=1
if [ ! -f "$out/bench.json" ]; then
  python3 -m ama_core bench --rounds 2 --concurrent 0 --json > "$out/bench.part" && mv "$out/bench.part" "$out/bench.json" || failed=1
fi
tables paper cuda:0 table1 --only ama-fashionmnist ama-cifar10 --preset paper --set epochs=30 $drift
tables paper cuda:0 ablations --only without-mirrored-fashionmnist --preset paper --set epochs=30 $drift
exit $failed
