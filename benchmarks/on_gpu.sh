#!/usr/bin/env bash
# What the repository measures on one GPU, the most important first. Called again, it goes on where it was stopped.
#
#   benchmarks/on_gpu.sh OUT [N]
#
# N trainings at once (default: the number of cores). OUT gets `results/` as the repository has it, the bundles under `bundles/` (measure
# each with `python -m ama_core measure`, which needs every set that its card should name), `bench.json` and a log of each step. Needs the
# data sets in AMA_DATA_DIR. In a copy that is no git checkout, AMA_COMMIT names the commit.
set -uo pipefail
out=$(realpath -m "$1") at_once=${2:-$(nproc --all)}
cd "$(dirname "$0")/.."
mkdir -p "$out/log"
export OMP_NUM_THREADS=1
devices=$(for _ in $(seq "$at_once"); do echo cuda:0; done | paste -sd,)
steadied="--set lambda_drift=0.001"

bundle() { # RECONSTRUCTION: of CIFAR-10, 20,000 steps
  local folder=$out/bundles/cifar10-$1 how="--preset small --set reconstruction=$1 --set max_steps=20000 $steadied"
  [ -f "$folder/checkpoint.safetensors" ] && how=--resume
  [ -f "$folder/config.json" ] || python3 -m ama_core train cifar10 $how --out "$folder" --no-measure --quiet
}

tables() { # TABLE ... ARGUMENT ...
  python3 -m ama_core benchmark "$@" --devices "$devices" --out "$out/runs" --results "$out/results" --no-validate --quiet
}

bundle mirrored > "$out/log/cifar10" 2>&1 &
bundle plain > "$out/log/cifar10-plain" 2>&1 &
tables table1 ablations --only cifar10 --preset tiny --set max_steps=6000 $steadied --seeds 3 > "$out/log/cifar10-tables" 2>&1
tables table2 --only ama --preset tiny --set max_steps=6000 $steadied --seeds 3 > "$out/log/table2" 2>&1
wait
python3 -m ama_core bench --rounds 2 --concurrent 0 --json > "$out/bench.json" 2> "$out/log/bench"
devices=cuda:0
tables table1 --only ama-fashionmnist ama-cifar10 --preset paper --set epochs=30 $steadied > "$out/log/paper" 2>&1
tables ablations --only without-mirrored-fashionmnist --preset paper --set epochs=30 $steadied > "$out/log/paper-plain" 2>&1
