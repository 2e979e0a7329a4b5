#!/usr/bin/env bash
# Models on benchmarks, in one table with the paper's rows:
#
#   bash launch/evaluate.sh MODEL… [--suite table1|ablation|domain|all] [--mode fathom|harness]
#     [--benchmarks NAME…] [--limit N] [--subtasks N] [--data DIR] [--run DIR] [--processes N] [more]
#
# MODEL is a folder or a hub name; without one, the SFT model and the actor of --run (default
# runs/evaluate). Without --data, data sets come from the hub; DIR holds a folder a benchmark, and
# then no network is needed. Writes RUN/benchmarks/benchmarks.md and .json, and every answer below
# RUN/benchmarks/answers. The same command goes on where it was stopped. What else is given goes to
# the stage (`--help` lists it).
#
# --suite domain is the embedded domain's held-out prompts instead, scored by its rubric: the first
# MODEL is compared with the second, and with further ones (common/evaluation/main.py). all: both.
set -euo pipefail

main() {
  local here suite=table1 run=runs/evaluate processes="" limit="" models=() options=() rest=()
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
  while (($#)); do
    case "$1" in
      --suite | --run | --processes | --limit | --data | --mode | --subtasks)
        if (($# < 2)); then
          echo "evaluate: error: $1 needs a value" >&2
          return 2
        fi
        case "$1" in
          --suite) suite="$2" ;;
          --run) run="$2" ;;
          --processes) processes="$2" ;;
          --limit) limit="$2" ;;
          --data) options+=(--benchmark_data "$2") ;;
          *) options+=("$1" "$2") ;;
        esac
        shift 2
        ;;
      --benchmarks)
        options+=("$1")
        shift
        while (($#)) && [[ "$1" != --* ]]; do options+=("$1") && shift; done
        ;;
      --*)
        rest+=("$1")
        shift
        while (($#)) && [[ "$1" != --* ]]; do rest+=("$1") && shift; done
        ;;
      *)
        models+=("$1")
        shift
        ;;
    esac
  done
  case "$suite" in
    table1 | ablation | domain | all) ;;
    *)
      echo "evaluate: error: --suite $suite: there are table1, ablation, domain and all" >&2
      return 2
      ;;
  esac
  if [[ "$suite" == domain && "${#models[@]}" == 1 ]]; then
    echo "evaluate: error: --suite domain compares models: give two or more, or none for those of --run" >&2
    return 2
  fi
  if [[ "$suite" == domain && "${#options[@]}" != 0 ]]; then
    echo "evaluate: error: --suite domain does not take ${options[0]/--benchmark_data/--data}, which is for benchmarks" >&2
    return 2
  fi
  bash "$here/setup.sh"
  source "$here/env.sh"
  processes="${processes:-${RANKS:-$((GPUS > 0 ? GPUS : 1))}}"
  rest+=(--run "$run" --limit "${limit:-0}")

  if [[ "$suite" != domain ]]; then
    options+=(--suite "$suite")
    if ((${#models[@]})); then options+=(--models "${models[@]}"); fi
    launch_stage "$processes" -m common.evaluation.benchmarks.run "${options[@]}" "${rest[@]}"
  fi
  if [[ "$suite" == all && "${#models[@]}" == 1 ]]; then
    echo "evaluate: the embedded domain is left out: it compares two models or more"
  elif [[ "$suite" == domain || "$suite" == all ]]; then
    domain
  fi
}

# The held-out prompts of the embedded domain, made where the run has none, and the report.
domain() {
  local contenders=() data=() name
  models=("${models[@]//\{run\}/"$run"}")
  if ((${#models[@]})); then contenders=(--sft "${models[0]}" --rlhf "${models[1]}"); fi
  if ((${#models[@]} > 2)); then contenders+=(--further "${models[@]:2}"); fi
  if [[ " ${rest[*]} " != *" --config "* ]]; then # it would say what is asked
    if [[ ! -e "$run/data/eval_seen.jsonl" ]]; then
      launch_plain "$PYTHON" -m common.data.ad_moderation.prepare --run "$run"
    fi
    data=(--data)
    for name in seen unseen general; do
      data+=("{\"name\": \"$name\", \"path\": \"$run/data/eval_$name.jsonl\"}")
    done
  fi
  launch_stage "$processes" -m common.evaluation.main "${contenders[@]}" "${data[@]}" "${rest[@]}"
  "$PYTHON" -m common.evaluation.report "$run"
}

main "$@"
exit
