#!/usr/bin/env bash
# Trains the bundled models again. FashionMNIST and CIFAR-10 must be available locally (AMA_DATA_DIR, or `datasets --download`).
# A training that was stopped goes on where it was; finished ones begin again.
#
#   pretrained/train.sh        as the bundled ones were made: sizes and steps for a CPU (about six hours of one core, most of
#                              it CIFAR-10's)
#   pretrained/train.sh rivals the other detectors on FashionMNIST (about two hours of one core, most of it AnoGAN's and WAIC's)
#   pretrained/train.sh gpu    FashionMNIST and CIFAR-10 at the paper's width, 30 epochs (at most 90 minutes on an H100)
set -euo pipefail
cd "$(dirname "$0")/.."

train() { # SET PRESET RECONSTRUCTION [SETTING ...]
  local name=$1 preset=$2 reconstruction=$3 out settings=()
  shift 3
  out=pretrained/$name$([ "$reconstruction" = mirrored ] || echo -plain)
  for setting in "reconstruction=$reconstruction" "$@"; do settings+=(--set "$setting"); done
  if [ ! -f "$out/checkpoint.safetensors" ]; then
    rm -rf "$out"
    python -m ama_core train "$name" --preset "$preset" "${settings[@]}" --out "$out"
  else
    python -m ama_core train "$name" --out "$out" --resume
  fi
  rm -r "$out"/{checkpoint.safetensors,samples,metrics.jsonl,status.json,run.json} # the rest is the bundle
}

rival() { # DETECTOR
  local out=pretrained/fashionmnist-$1
  if [ ! -f "$out/checkpoint.safetensors" ]; then
    rm -rf "$out"
    python -m ama_core train fashionmnist --detector "$1" --preset tiny --out "$out"
  else
    python -m ama_core train fashionmnist --out "$out" --resume
  fi
  rm -rf "$out"/{checkpoint.safetensors,samples,metrics.jsonl,status.json,run.json}
}

if [ "${1:-cpu}" = rivals ]; then
  for detector in deepsvdd typicality glow pixelcnn complexity fencegan skipganomaly likelihood_ratio waic alad anogan; do
    rival $detector
  done
elif [ "${1:-cpu}" = gpu ]; then
  for reconstruction in mirrored plain; do
    train fashionmnist paper $reconstruction epochs=30 lambda_drift=0.001
    train cifar10 paper $reconstruction epochs=30 lambda_drift=0.001
  done
else
  train digits tiny mirrored lambda_drift=0
  train digits tiny plain lambda_drift=0
  train photos tiny mirrored max_steps=1500 lambda_drift=0
  train photos tiny plain max_steps=1500 lambda_drift=0
  train fashionmnist tiny mirrored max_steps=6000
  train fashionmnist tiny plain max_steps=6000
  train cifar10 small mirrored max_steps=20000
  train cifar10 small plain max_steps=20000
fi
