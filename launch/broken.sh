#!/usr/bin/env bash
# A finished quickstart run, copied and broken on purpose; its report must name what was broken.
#
#   bash launch/broken.sh labels|sft|ppo RUN OUT
#
# labels: the reward model learns from pairs whose better response a coin chose; sft: stopped after
# ten steps; ppo: a hundredfold learning rate. RUN stays as it is. Only the stages from the break on
# are done again, and cut down (common/evaluation/broken.py): some minutes. The same command goes on
# where it was stopped.
set -euo pipefail

main() {
  local here config
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
  bash "$here/setup.sh"
  source "$here/env.sh"
  config="$("$PYTHON" -m common.evaluation.broken "$@")" || exit $?
  if [[ ! -f "$config" ]]; then # --help: what it printed
    echo "$config"
    return
  fi
  exec bash "$here/pipeline.sh" "$config"
}

main "$@"
