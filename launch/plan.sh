#!/usr/bin/env bash
# What a recipe would take, stage by stage, before the first GPU hour: memory by phase and kind, whether
# it fits and which single setting would make it fit, steps, tokens, time, communication. Nothing is run
# and nothing written; needs no GPU and no data, and of the models only their configs.
#
#   bash launch/plan.sh RECIPE [--gpu H100-80G] [--nodes 8] [--gpus 8] [what the recipe takes]
#
# --gpus is per node. What is not given is the recipe's own hardware. An empty --gpu plans for this
# machine. Cards: common/zero/plan/cards.py.
set -euo pipefail
if (($# < 1)) || [[ ! -f "$1" ]]; then
  echo "plan: error: give a recipe: bash launch/plan.sh launch/recipes/NAME.sh [--gpu NAME] [--nodes N] [--gpus M]" >&2
  exit 2
fi
recipe="$1"
shift
rest=()
while (($#)); do
  case "$1" in
    --gpu | --nodes | --gpus)
      if (($# < 2)); then
        echo "plan: error: $1 needs a value" >&2
        exit 2
      fi
      name="${1#--}"
      export "RLHF_PLAN_${name^^}=$2"
      shift 2
      ;;
    *)
      rest+=("$1")
      shift
      ;;
  esac
done
RLHF_PLAN=1 exec bash "$recipe" "${rest[@]}"
