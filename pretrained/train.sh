#!/usr/bin/env bash
# Trains the bundled models again. FashionMNIST and CIFAR-10 must be available locally (AMA_DATA_DIR, or `datasets --download`).
# Trainings lie in build/pretrained/MODE: one that was stopped goes on where it was, and what is finished is not trained again (delete
# its folder there to begin again, as where settings below were changed). A bundle is replaced once its training has ended.
#
#   pretrained/train.sh        as the bundled ones were made: sizes and steps for a CPU (about six hours of one core, most of
#                              it CIFAR-10's)
#   pretrained/train.sh rivals the other detectors on FashionMNIST (about two hours of one core, most of it AnoGAN's and WAIC's)
#   pretrained/train.sh gpu    FashionMNIST and CIFAR-10 at the paper's width, 30 epochs (at most 90 minutes on an H100)
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-cpu}

bundle() { # NAME SET [OPTION ...]
  local name=$1 images=$2 run=build/pretrained/$mode/$1 new=build/pretrained/$mode/.$1
  shift 2
  if ! grep -qs '"state": "finished"' "$run/status.json"; then
    if [ -f "$run/checkpoint.safetensors" ]; then
      python -m ama_core train "$images" --out "$run" --resume
    else
      rm -rf "$run"
      python -m ama_core train "$images" "$@" --out "$run"
    fi
  fi
  rm -rf "$new"
  cp -r "$run" "$new"
  rm -rf "$new"/{checkpoint.safetensors,samples,watched,metrics.jsonl,status.json,run.json,log.txt,.lock} # the rest is the bundle
  rm -rf "pretrained/$name"
  mv "$new" "pretrained/$name"
}

train() { # SET PRESET RECONSTRUCTION [SETTING ...]
  local images=$1 preset=$2 reconstruction=$3 settings=()
  shift 3
  for setting in "reconstruction=$reconstruction" "$@"; do settings+=(--set "$setting"); done
  bundle "$images$([ "$reconstruction" = mirrored ] || echo -plain)" "$images" --preset "$preset" "${settings[@]}"
}

if [ "$mode" = rivals ]; then
  for detector in deepsvdd typicality glow pixelcnn complexity fencegan skipganomaly likelihood_ratio waic alad anogan; do
    bundle "fashionmnist-$detector" fashionmnist --detector "$detector" --preset tiny
  done
elif [ "$mode" = gpu ]; then
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
