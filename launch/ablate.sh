#!/usr/bin/env bash
# One change at a time, over seeds: does it make a difference? (launch/ablations/NAME.yaml)
#
#   bash launch/ablate.sh NAME… [--seeds 0 1 2] [--run DIR] [--config FILE] [--jobs N] [--processes N]
#   bash launch/ablate.sh all --jobs 2
#
# The same command goes on where it was stopped, and takes further names and seeds. Runs of one seed
# share the stages that they have in common. --jobs N makes N runs at a time, of different seeds, each
# with its share of the cores and a log beside its folder. --processes: ranks of each run.
set -euo pipefail

main() {
  local here jobs=1 processes=1 arguments=() seed folder config plan failed=0 stopping=0
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
  while (($#)); do
    case "$1" in
      -h | --help)
        sed -n '2,/^set -/s/^# \{0,1\}//p' "$here/ablate.sh"
        return
        ;;
      --jobs | --processes)
        if ! [[ "${2:-}" =~ ^[1-9][0-9]*$ ]]; then
          echo "ablate: error: $1 needs a whole number, 1 or more" >&2
          return 2
        fi
        if [[ "$1" == --jobs ]]; then jobs="$2"; else processes="$2"; fi
        shift 2
        ;;
      *) arguments+=("$1") && shift ;;
    esac
  done
  source "$here/env.sh"
  trap - TERM INT USR1 HUP # those of env.sh are for a single stage
  bash "$here/setup.sh"
  plan="$("$PYTHON" -m common.evaluation.ablation plan "${arguments[@]}")" || exit $?
  echo "ablate: $(wc -l <<<"$plan") runs, those that are finished included, $jobs at a time"
  if ((jobs > 1)); then
    local threads="$(($(nproc) / jobs / processes))"
    export OMP_NUM_THREADS_OVERRIDE="${OMP_NUM_THREADS_OVERRIDE:-$((threads > 0 ? threads : 1))}"
  fi

  # A background command is deaf to Ctrl-C: it is passed on as a signal that stages stop at.
  trap 'stopping=$((stopping + 1)); kill -TERM $(jobs -rp) 2>/dev/null || true' TERM INT USR1 HUP
  for seed in $(cut -d " " -f 1 <<<"$plan" | sort -nu); do
    while (($(jobs -rp | wc -l) >= jobs)); do wait_for_one; done
    ((failed || stopping)) && break
    make_runs "$seed" &
  done
  while (($(jobs -p | wc -l))); do wait_for_one; done
  if ((failed)); then exit "$failed"; fi
  if ((stopping)); then exit 75; fi # between two runs
  "$PYTHON" -m common.evaluation.ablation report "${arguments[@]}"
}

# The code of the first seed that did not finish is this command's.
wait_for_one() {
  local code=0 before=$stopping
  wait -n || code=$?
  if ((stopping > before)); then return; fi # a signal ended the wait; the runs go on to their stop
  if ((code && !failed)); then failed=$code; fi
}

# All runs of one seed, one after the other.
make_runs() {
  local run="" code asked=-9
  # A signal to the whole group comes twice, from its sender and from above: that is one.
  # (Looked at and noted in one command: between two, the second signal's trap would run.)
  trap '((SECONDS - asked > 2 && (asked = SECONDS + 1))) && kill -TERM $run 2>/dev/null' TERM
  while read -r seed folder config; do
    [[ "$seed" == "$1" ]] || continue
    "$PYTHON" -m common.evaluation.ablation share "${arguments[@]}" --into "$folder"
    mkdir -p "${folder%/*}"
    echo "ablate: seed $seed, ${folder##*/}"
    if ((jobs > 1)); then
      setsid bash "$here/pipeline.sh" "$config" --processes "$processes" >>"$folder.log" 2>&1 </dev/null &
    else
      setsid bash "$here/pipeline.sh" "$config" --processes "$processes" </dev/null &
    fi
    run=$!
    code=0
    wait "$run" || code=$?
    while kill -0 "$run" 2>/dev/null; do code=0 && wait "$run" || code=$?; done # a signal ended the wait
    if ((code)); then
      echo "ablate: ${folder}: ended with code $code$( ((jobs > 1)) && echo ", see $folder.log")" >&2
      return "$code"
    fi
  done <<<"$plan"
}

main "$@"
exit
