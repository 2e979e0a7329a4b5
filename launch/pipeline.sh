#!/usr/bin/env bash
# The whole pipeline from one YAML file: every stage that has a section in it, in order.
#
#   bash launch/pipeline.sh CONFIG [--run DIR] [--processes N] [--seed N] [--fresh]
#
# A stage that finished is not run again; --fresh starts over. {run} and {data} in CONFIG stand for
# the run directory and for the folder of data files (RLHF_DATA, by default ../shared/data).
set -euo pipefail

# In a function, which is read whole: an edit of this file does not reach a run under way.
main() {
  local here plan run processes seed config options stage
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
  bash "$here/setup.sh"
  source "$here/env.sh"

  # Paths are relative to where the command was given, here and in every stage.
  plan="$("$PYTHON" -m common.config.pipeline "$@")" || exit $?
  read -r run processes seed config <<<"$(head -n 1 <<<"$plan")"
  options=(--config "$config" --run "$run" --seed "$seed")

  for stage in $(tail -n +2 <<<"$plan"); do
    note_start
    case "$stage" in
      data) "$PYTHON" -m common.data.ad_moderation.prepare "${options[@]}" ;;
      sft) launch_stage "$processes" "$ROOT/step1_sft/main.py" "${options[@]}" ;;
      sample) launch_stage "$processes" "$ROOT/step2_reward/sample.py" "${options[@]}" ;;
      rank) "$PYTHON" "$ROOT/step2_reward/rank.py" "${options[@]}" ;;
      pairs) "$PYTHON" "$ROOT/step2_reward/pairs.py" "${options[@]}" ;;
      reward) launch_stage "$processes" "$ROOT/step2_reward/main.py" "${options[@]}" ;;
      rlhf) launch_stage "$processes" "$ROOT/step3_rlhf/main.py" "${options[@]}" ;;
      evaluation) launch_stage "$processes" -m common.evaluation.main "${options[@]}" ;;
    esac
  done
  "$PYTHON" -m common.evaluation.report "$run"
}

main "$@"
exit
