#!/usr/bin/env bash
# DPO in place of reward model and PPO. Arguments go on to dpo.py; RANKS says how many processes
# (GPUs) take part.
#
#   RANKS=8 bash step3_rlhf/dpo.sh --config my.yaml --run runs/mine
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../launch/setup.sh" >&2
source "$here/../launch/env.sh"
launch_stage "${RANKS:-$((GPUS > 0 ? GPUS : 1))}" "$here/dpo.py" "$@"; exit
