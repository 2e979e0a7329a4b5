#!/usr/bin/env bash
# How fast this is on this machine, as ratios to transformers' generate and to TRL's trainers:
#
#   bash launch/benchmark.sh [--quick] [--run DIR]
#
# Prints the ratios, and writes DIR/benchmark.json and DIR/benchmark.md (default runs/benchmark).
# --quick takes fewer measurements of each. Nothing else should run on the machine meanwhile.
set -euo pipefail

main() {
  local here run=runs/benchmark quick=0
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
  while (($#)); do
    case "$1" in
      --quick) quick=1 ;;
      --run)
        if (($# < 2)); then
          echo "benchmark: --run needs a folder" >&2
          return 2
        fi
        run="$2"
        shift
        ;;
      *) echo "benchmark: unknown option $1; there are --quick and --run DIR" >&2; return 2 ;;
    esac
    shift
  done
  bash "$here/setup.sh" --benchmark
  source "$here/env.sh"

  local rollouts=(--repeats 8) iterations=(--repeats 6) supervised=(--repeats 3 --steps 100)
  local rooflines=(--repeats 5)
  if ((quick)); then
    rollouts=(--repeats 2 --growth false) iterations=(--repeats 2 --growth false)
    supervised=(--repeats 1 --steps 30 --growth false) rooflines=(--repeats 2)
  fi
  launch_stage 1 -m common.benchmark.rollouts --run "$run/rollouts" "${rollouts[@]}"
  local several=1
  if [[ "$DEVICE" == cuda ]] && ((GPUS < 2)); then several=0; fi # two ranks need two cards
  if ((several)); then
    launch_stage 2 -m common.benchmark.rollouts --run "$run/sharded" --sharded true "${rollouts[@]}"
  fi
  launch_stage 1 -m common.benchmark.iteration --run "$run/iteration" "${iterations[@]}"
  if ((several)); then
    launch_stage 2 -m common.benchmark.iteration --run "$run/iteration_sharded" "${iterations[@]}"
  fi
  OMP_NUM_THREADS="$(nproc)" CUDA_VISIBLE_DEVICES=0 "$PYTHON" -m common.benchmark.supervised --run "$run/supervised" "${supervised[@]}"
  launch_stage 1 -m common.benchmark.roofline --run "$run/roofline" "${rooflines[@]}"
  "$PYTHON" -m common.benchmark.report "$run"
}

main "$@"
exit
