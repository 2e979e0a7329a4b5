# Sourced by the recipes: the few words that one is written in.
#
#   hardware --nodes 2 --gpus 8 --gpu H100-80G   what it is meant for; --gpus is per node
#   all OPTIONS                                  options of every stage that has ranks
#   training OPTIONS                             options of sft, reward, rlhf and dpo
#   data|sft|sample|rank|ai_rank|import|pairs|reward|rlhf|dpo|evaluation OPTIONS
#                                                options of one stage, which then runs
#   go "$@"                                      runs the stages, in their order
#
# `go` takes from the recipe's command line: --run DIR, --seed N, --only STAGE… (some of the stages),
# --processes N (ranks per node; by default the recipe's --gpus, on a CPU 1), and after a stage's name
# with a colon options for that stage, which win over the recipe's:
#
#   bash launch/recipes/X.sh --run runs/x sft: --model tiny --epochs 1 rlhf: --steps 20
#
# A stage that is named so is added where the recipe lacks it (`dpo` behind --only is, too):
#
#   bash launch/recipes/X.sh … ai_rank: --endpoint URL --judge_model NAME \
#     pairs: --rankings RUN/ai_rank/rankings.jsonl dpo:
#
# Data is named by the environment, as files, or names on the hub, with blanks between:
# SFT_DATA (conversations), PROMPTS (to sample from, and for PPO), RANKINGS (for the reward model),
# EVAL_DATA (held-out prompts). A stage whose data is missing says so before the first one starts.
#
# RLHF_SHOW=1 prints each stage's options, a line each, in place of running it. RLHF_PLAN=1 prints what
# each would take (launch/plan.sh); it needs no data.

RECIPE_STAGES=(data sft sample rank ai_rank import pairs reward rlhf dpo evaluation)
declare -A RECIPE_OPTIONS=() RECIPE_EXTRA=()
RECIPE_ALL=() RECIPE_TRAINING=() RECIPE_ONLY=()
NODES=1 GPUS_PER_NODE="${GPUS_PER_NODE:-1}" GPU=""

hardware() {
  while (($#)); do
    case "$1" in
      --nodes) NODES="$2" ;;
      --gpus) GPUS_PER_NODE="$2" ;;
      --gpu) GPU="$2" ;;
      *) recipe_error "hardware: unknown option $1" ;;
    esac
    shift 2
  done
}

all() { RECIPE_ALL+=("$@"); }
training() { RECIPE_TRAINING+=("$@"); }

# Options may hold blanks and quotes: they are kept as bash would write them.
note_options() {
  local stage="$1"
  shift
  RECIPE_OPTIONS[$stage]="${RECIPE_OPTIONS[$stage]:-} $(quoted "$@")"
}
quoted() { if (($#)); then printf '%q ' "$@"; fi; }
data() { note_options data "$@"; }
sft() { note_options sft "$@"; }
sample() { note_options sample "$@"; }
rank() { note_options rank "$@"; }
ai_rank() { note_options ai_rank "$@"; }
import() { note_options import "$@"; }
pairs() { note_options pairs "$@"; }
reward() { note_options reward "$@"; }
rlhf() { note_options rlhf "$@"; }
dpo() { note_options dpo "$@"; }
evaluation() { note_options evaluation "$@"; }

recipe_error() {
  echo "recipe: error: $1" >&2
  exit 2
}

go() {
  local stage run="runs/$(basename "$0" .sh)" seed=0 ranks=""
  read_command_line "$@"
  source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
  if [[ "$DEVICE" == cpu ]]; then ranks="${ranks:-1}"; fi
  ranks="${ranks:-$GPUS_PER_NODE}"
  local chosen=() name
  for stage in "${RECIPE_STAGES[@]}"; do
    if [[ ! -v "RECIPE_OPTIONS[$stage]" ]]; then continue; fi
    if ((${#RECIPE_ONLY[@]})) && [[ " ${RECIPE_ONLY[*]} " != *" $stage "* ]]; then continue; fi
    if [[ -z "${RLHF_PLAN:-}" ]]; then require_data "$stage"; fi
    chosen+=("$stage")
  done
  if ! ((${#chosen[@]})); then recipe_error "no stage is left to run"; fi
  if [[ -n "${RLHF_PLAN:-}" ]]; then
    bash "$ROOT/launch/setup.sh"
  elif [[ -z "${RLHF_SHOW:-}" ]]; then
    if ((NODES > 1)) && [[ "$DEVICE" == cuda && "${RLHF_NODES:-1}" == 1 ]]; then
      recipe_error "it is for $NODES nodes of $GPUS_PER_NODE $GPU; start it by: bash launch/multinode.sh … $0 …"
    fi
    bash "$ROOT/launch/setup.sh"
  fi
  for stage in "${chosen[@]}"; do
    if ((STOP_ASKED)); then exit 75; fi
    run_recipe_stage "$stage" "$run" "$seed" "$ranks"
  done
}

# Sets run, seed, ranks of `go`, RECIPE_ONLY and RECIPE_EXTRA.
read_command_line() {
  local current=""
  while (($#)); do
    case "$1" in
      data: | sft: | sample: | rank: | ai_rank: | import: | pairs: | reward: | rlhf: | dpo: | evaluation:)
        current="${1%:}"
        note_options "$current"
        shift
        continue
        ;;
    esac
    if [[ -n "$current" ]]; then
      RECIPE_EXTRA[$current]="${RECIPE_EXTRA[$current]:-} $(quoted "$1")"
      shift
      continue
    fi
    if (($# < 2)); then recipe_error "$1 needs a value"; fi
    case "$1" in
      --run) run="$2" ;;
      --seed) seed="$2" ;;
      --processes) ranks="$2" ;;
      --only)
        while (($# > 1)) && [[ "$2" != -* && "$2" != *: ]]; do
          RECIPE_ONLY+=("$2")
          if [[ "$2" == dpo ]]; then dpo; fi
          shift
        done
        shift
        continue
        ;;
      *) recipe_error "unknown option $1; a stage's options stand after its name: sft: $1 …" ;;
    esac
    shift 2
  done
}

# The data that a stage lacks in the recipe and on the command line comes from the environment.
require_data() {
  local stage="$1" variable="" option=--data
  case "$stage" in
    sft) variable=SFT_DATA ;;
    sample | rlhf) variable=PROMPTS ;;
    reward | dpo) variable=RANKINGS ;;
    evaluation) variable=EVAL_DATA ;;
    *) return 0 ;;
  esac
  if [[ " ${RECIPE_OPTIONS[$stage]} ${RECIPE_EXTRA[$stage]:-} " == *" $option "* ]]; then return 0; fi
  # The rankings of the samples of this very model, when the recipe makes them.
  if [[ "$variable" == RANKINGS && -v "RECIPE_OPTIONS[pairs]" ]]; then return 0; fi
  if [[ -z "${!variable:-}" ]]; then
    recipe_error "$stage has no data: set $variable=FILE…, or give $stage: --data FILE…, or leave \
the stage out (--only STAGE…)"
  fi
  local files
  read -ra files <<<"${!variable}"
  note_options "$stage" --data "${files[@]}"
}

# One stage, with its options: the last of two that say the same wins.
run_recipe_stage() {
  local stage="$1" run="$2" seed="$3" ranks="$4" script plain="" options words
  case "$stage" in
    data) script="-m common.data.ad_moderation.prepare" plain=1 ;;
    sft) script="$ROOT/step1_sft/main.py" ;;
    sample) script="$ROOT/step2_reward/sample.py" ;;
    rank) script="$ROOT/step2_reward/rank.py" plain=1 ;;
    ai_rank) script="$ROOT/step2_reward/ai_rank.py" plain=1 ;;
    import) script="$ROOT/step2_reward/import_rankings.py" plain=1 ;;
    pairs) script="$ROOT/step2_reward/pairs.py" plain=1 ;;
    reward) script="$ROOT/step2_reward/main.py" ;;
    rlhf) script="$ROOT/step3_rlhf/main.py" ;;
    dpo) script="$ROOT/step3_rlhf/dpo.py" ;;
    evaluation) script="-m common.evaluation.main" ;;
  esac
  # A checkout may lie in a folder with blanks in its name.
  if [[ "$script" == "-m "* ]]; then script=(-m "${script#-m }"); else script=("$script"); fi
  eval "words=(${RECIPE_OPTIONS[$stage]} ${RECIPE_EXTRA[$stage]:-})"
  options=(--run "$run" --seed "$seed")
  if [[ -z "$plain" ]]; then options+=("${RECIPE_ALL[@]}"); fi
  case "$stage" in sft | reward | rlhf | dpo) options+=("${RECIPE_TRAINING[@]}") ;; esac
  options+=("${words[@]}")
  if [[ -n "${RLHF_PLAN:-}" ]]; then
    if [[ -n "$plain" ]]; then return 0; fi
    options+=(--dry_run true --plan_nodes "${RLHF_PLAN_NODES:-$NODES}")
    options+=(--plan_gpus "${RLHF_PLAN_GPUS:-$GPUS_PER_NODE}" --plan_gpu "${RLHF_PLAN_GPU-$GPU}")
    options+=(--plan_model "$(base_model)")
  fi
  if [[ -n "${RLHF_SHOW:-}" ]]; then
    echo "$stage $(quoted "${options[@]}")"
  elif [[ -n "${RLHF_PLAN:-}" ]]; then
    "$PYTHON" "${script[@]}" "${options[@]}"
  elif [[ -n "$plain" ]]; then
    launch_plain "$PYTHON" "${script[@]}" "${options[@]}"
  else
    launch_stage "$ranks" "${script[@]}" "${options[@]}"
  fi
}

# The model that stage 1 starts from, and whose shape later stages' models have.
base_model() {
  local words model=tiny
  eval "words=(${RECIPE_OPTIONS[sft]:-} ${RECIPE_EXTRA[sft]:-})"
  while ((${#words[@]} > 1)); do
    if [[ "${words[0]}" == --model ]]; then model="${words[1]}"; fi
    words=("${words[@]:1}")
  done
  echo "$model"
}
