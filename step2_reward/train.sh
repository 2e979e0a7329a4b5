#!/usr/bin/env bash
# Trains ICE-Reward on pairs. Arguments go on to main.py; RANKS says how many processes take part.
#
#   bash step2_reward/train.sh --config my.yaml --run runs/mine
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../launch/setup.sh" >&2
source "$here/../launch/env.sh"
launch_stage "${RANKS:-$((GPUS > 0 ? GPUS : 1))}" "$here/main.py" "$@"; exit
