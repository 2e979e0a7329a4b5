#!/usr/bin/env bash
# The whole pipeline from one YAML file: every stage that has a section in it, in order.
#
#   bash launch/pipeline.sh CONFIG [--run DIR] [--processes N] [--seed N] [--fresh] [--restart STAGE]
#
# The same command goes on where it was stopped or killed: a finished stage is left out, an
# unfinished one goes on from its last checkpoint, and one whose settings or inputs changed since it
# finished is done again. --fresh starts all over, --restart one stage. It ends with code 75 when a
# signal stopped it (see env.sh). {run} and {data} in CONFIG stand for the run directory and for the
# folder of data files (RLHF_DATA, by default ../shared/data).
set -euo pipefail

# In a function, which is read whole: an edit of this file does not reach a run under way.
main() {
  local here plan run processes seed config options stage settled
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
  source "$here/env.sh"
  export RLHF_LAUNCHER="${RLHF_LAUNCHER:-pipeline.sh CONFIG}"
  bash "$here/setup.sh"

  # Paths are relative to where the command was given, here and in every stage.
  plan="$("$PYTHON" -m common.config.pipeline "$@")" || exit $?
  read -r run processes seed config <<<"$(head -n 1 <<<"$plan")"
  options=(--config "$config" --run "$run" --seed "$seed")

  options+=(--on_change rerun)
  case " $* " in *" --fresh "* | *" --restart "*) export RLHF_STARTS_OVER=1 ;; esac
  while read -r stage settled; do
    if ((STOP_ASKED)); then exit 75; fi # the stage before was through before it could stop
    # Looked at when its turn comes: the stages before it may have made its inputs anew.
    if ((settled)) && "$PYTHON" -m common.training.resume.identity "$run" "$stage"; then
      echo "$stage: finished already, from the same settings and inputs"
      continue
    fi
    case "$stage" in
      data) launch_plain "$PYTHON" -m common.data.ad_moderation.prepare "${options[@]}" ;;
      sft) launch_stage "$processes" "$ROOT/step1_sft/main.py" "${options[@]}" ;;
      sample) launch_stage "$processes" "$ROOT/step2_reward/sample.py" "${options[@]}" ;;
      rank) launch_plain "$PYTHON" "$ROOT/step2_reward/rank.py" "${options[@]}" ;;
      ai_rank) launch_plain "$PYTHON" "$ROOT/step2_reward/ai_rank.py" "${options[@]}" ;;
      import) launch_plain "$PYTHON" "$ROOT/step2_reward/import_rankings.py" "${options[@]}" ;;
      pairs) launch_plain "$PYTHON" "$ROOT/step2_reward/pairs.py" "${options[@]}" ;;
      reward) launch_stage "$processes" "$ROOT/step2_reward/main.py" "${options[@]}" ;;
      rlhf) launch_stage "$processes" "$ROOT/step3_rlhf/main.py" "${options[@]}" ;;
      dpo) launch_stage "$processes" "$ROOT/step3_rlhf/dpo.py" "${options[@]}" ;;
      evaluation) launch_stage "$processes" -m common.evaluation.main "${options[@]}" ;;
      benchmarks) launch_stage "$processes" -m common.evaluation.benchmarks.run "${options[@]}" ;;
    esac
  done < <(tail -n +2 <<<"$plan")
  "$PYTHON" -m common.evaluation.report "$run"
}

main "$@"
exit
