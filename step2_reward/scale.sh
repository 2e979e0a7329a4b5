#!/usr/bin/env bash
# Accuracy of ICE-Reward against its size and the amount of data. Arguments go on to scale.py; RANKS says how many processes take part.
#
#   bash step2_reward/scale.sh --run runs/scale                     # the embedded domain, tiny models: minutes on a CPU
#   bash step2_reward/scale.sh --config my.yaml --run runs/mine --sizes runs/mine/models/sft facebook/opt-1.3b --fractions 0.1,0.3,1
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../launch/setup.sh" >&2
source "$here/../launch/env.sh"
launch_stage "${RANKS:-$((GPUS > 0 ? GPUS : 1))}" "$here/scale.py" "$@"; exit
