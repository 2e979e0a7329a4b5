#!/usr/bin/env bash
# Starts any launcher (a recipe, pipeline.sh, one stage's run.sh) over several nodes.
#
# With ssh from the first node to all of them (through pdsh), on the first node only:
#
#   bash launch/multinode.sh --hostfile hosts launch/recipes/ice_grt_13b.sh --run /shared/ice_grt
#
# Without ssh, the same command on every node, each with its own number:
#
#   bash launch/multinode.sh --hostfile hosts --no_ssh --node_rank R --master_addr FIRST_NODE \
#     launch/recipes/ice_grt_13b.sh --run /shared/ice_grt
#
# The hostfile is DeepSpeed's: a line `NAME slots=GPUS` per node, the first node first. Further
# options: --master_port P, --ssh_port P, --shared DIR (a folder that all nodes see under the same
# name; by default the launcher's --run with .nodes behind it), --skip_preflight.
#
# Before the first stage all nodes are compared: code, package versions, cards, the data that the
# environment and the launcher's words name, free memory and disk, clocks, connections, an
# all-reduce, and whether the folder that all should see is one. When a node does not fit, it is
# named and the command ends with code 2. RLHF_PREFLIGHT holds options of common/training/preflight
# ("--clock_skew 1 --free_disk 200"), or `skip`, as --skip_preflight.
#
# The checkout, the run directory and the data must be at the same path on all nodes, and the run
# directory on a file system that they share. The launcher itself, and the stages without ranks,
# run on the first node; without ssh the others follow it: they wait for its word in the shared
# folder, and take their part in each stage with ranks. Without ssh a signal to any node's command
# stops all in order, and all end with the stage's own code (see env.sh); with ssh it is the first
# node's command that is signalled.
#
# A node of which nothing is heard during a stage for RLHF_SILENCE seconds (30) counts as lost: all
# nodes say which one it is, and end with code 75. Between stages, where word comes by files, which
# a network's file system may show late, a node without ssh waits for the first one's for
# RLHF_FILE_SILENCE seconds (120; a whole number, at least 10), and ends with code 75, too.
set -euo pipefail

main() {
  local here hostfile="" no_ssh="" node_rank=-1 master="" port=29500 ssh_port="" shared=""
  local skip_preflight=""
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
  while (($#)) && [[ "$1" == --* ]]; do
    case "$1" in
      --no_ssh | --skip_preflight)
        if [[ "$1" == --no_ssh ]]; then no_ssh=1; else skip_preflight=1; fi
        shift
        continue
        ;;
    esac
    if (($# < 2)); then refuse "$1 needs a value"; fi
    case "$1" in
      --hostfile) hostfile="$2" ;;
      --node_rank) node_rank="$2" ;;
      --master_addr) master="$2" ;;
      --master_port) port="$2" ;;
      --ssh_port) ssh_port="$2" ;;
      --shared) shared="$2" ;;
      *) refuse "unknown option $1" ;;
    esac
    shift 2
  done
  if [[ ! -f "$hostfile" ]]; then refuse "--hostfile: no such file: ${hostfile:-none was given}"; fi
  if (($# == 0)) || [[ ! -f "$1" ]]; then refuse "which launcher? no such file: ${1:-none}"; fi
  # A node's "NAME SLOTS" each, of the lines that DeepSpeed reads.
  local hosts=() nodes
  mapfile -t hosts < <(awk '$1 !~ /^#/ && $2 ~ /^slots=[0-9]/ {print $1, substr($2, 7) + 0}' "$hostfile")
  nodes=${#hosts[@]}
  if ((nodes < 2)); then refuse "$hostfile must have a line NAME slots=GPUS for each of 2 nodes or more"; fi
  local silence="${RLHF_FILE_SILENCE:-120}"
  if [[ ! "$silence" =~ ^[1-9][0-9]{1,8}$ ]]; then
    refuse "RLHF_FILE_SILENCE is '$silence', but must be a whole number of seconds, at least 10"
  fi
  # Every rank learns these by its environment.
  hostfile="$(realpath "$hostfile")"
  export RLHF_NODES="$nodes" RLHF_HOSTFILE="$hostfile" RLHF_MASTER_PORT="$port"
  export RLHF_MASTER_ADDR="${master:-${hosts[0]% *}}"
  shared="${shared:-$(shared_folder "$@")}/rlhf_nodes" # a name of its own: old sessions are deleted
  mkdir -p "$shared"
  shared="$(realpath "$shared")"

  if [[ -z "$no_ssh" ]]; then
    if ! command -v pdsh >/dev/null; then
      refuse "pdsh is not installed; install it (Debian: pdsh), or use --no_ssh on every node"
    fi
    export RLHF_SSH_PORT="$ssh_port" RLHF_NODE_RANK=0
    export RLHF_SESSION="$shared/session-$(date +%s)-$$"
    mkdir -p "$RLHF_SESSION"
    forward_environment
    source "$here/env.sh"
    bash "$here/setup.sh" || exit $?
    preflight "$@" || exit $?
    exec bash "$@"
  fi

  if ((node_rank < 0 || node_rank >= nodes)); then
    refuse "--node_rank must be 0 to $((nodes - 1)), as $hostfile has $nodes nodes"
  fi
  export RLHF_NODE_RANK="$node_rank" RLHF_NO_SSH=1
  source "$here/env.sh"
  if ((node_rank == 0)); then lead "$@"; else follow; fi
}

refuse() {
  echo "multinode: error: $1" >&2
  exit 2
}

# By default beside the run: --fresh deletes the run's own folder, and must not delete this one.
shared_folder() {
  while (($# > 1)); do
    if [[ "$1" == --run ]]; then
      echo "${2%/}.nodes"
      return
    fi
    shift
  done
  refuse "give --shared DIR, a folder that all nodes see (the launcher has no --run to put it in)"
}

# A stage of its own, before the launcher's first.
preflight() {
  if [[ -n "$skip_preflight" || "${RLHF_PREFLIGHT:-}" == skip ]]; then return 0; fi
  local ranks=1 options=() files=()
  # One rank per card, which are the hostfile's slots.
  if [[ "$DEVICE" == cuda ]]; then ranks="${hosts[0]#* }"; fi
  read -ra options <<<"${RLHF_PREFLIGHT:-}"
  mapfile -t files < <(data_files "$@")
  if ((${#files[@]})); then options+=(--data "${files[@]}"); fi
  export RLHF_STAGE_NUMBER=0
  launch_stage "$ranks" -m common.training.preflight --folder "$shared" "${options[@]}"
}

# The data that the environment names, and the launcher's words after options that name data; one
# a line.
data_files() {
  local word taken=""
  for word in ${SFT_DATA:-} ${PROMPTS:-} ${RANKINGS:-} ${EVAL_DATA:-}; do echo "$word"; done
  for word in "$@"; do
    case "$word" in
      --data | --eval_data | --ptx_data | --rankings) taken=1 ;;
      --data=* | --eval_data=* | --ptx_data=* | --rankings=*) echo "${word#*=}" && taken="" ;;
      -* | *:) taken="" ;;
      *) if [[ -n "$taken" ]]; then echo "$word"; fi ;;
    esac
  done
}

# DeepSpeed passes on what is in this file, besides NCCL_* and PYTHON*.
forward_environment() {
  export DS_ENV_FILE="$RLHF_SESSION/environment"
  local name
  for name in $(compgen -e); do
    case "$name" in
      RLHF_SHELL | RLHF_STOP_FILE | RLHF_STATUS_FILE) ;; # each stage's own: env.sh adds them
      GLOO_* | HF_* | WANDB_* | RLHF_* | DS_ACCELERATOR | OMP_NUM_THREADS | TOKENIZERS_PARALLELISM | GOMP_SPINCOUNT | MALLOC_*)
        if [[ "${!name}" != *$'\n'* ]]; then echo "$name=${!name}"; fi
        ;;
    esac
  done >"$DS_ENV_FILE"
  chmod 600 "$DS_ENV_FILE" # keys of hubs may be in it
}

# The first node: runs the launcher, which has the others take part by `launch_stage`.
lead() {
  local code=0 process
  # Before the others begin to count: a first installation takes minutes.
  bash "$here/setup.sh" || code=$?
  if ((code)); then echo "multinode: error: setup.sh failed; the other nodes are told so" >&2; fi
  rm -rf "$shared"/hello.* "$shared"/session "$shared"/session-*
  export RLHF_SESSION="$shared/session-$(date +%s)-$$"
  mkdir -p "$RLHF_SESSION"
  echo "multinode: waiting for $((RLHF_NODES - 1)) other node(s), by files in $shared" >&2
  local hellos=() missing=() looks=0
  # Whoever is there says so again every second: what an earlier run left does not count.
  until ((${#hellos[@]} == RLHF_NODES - 1)); do
    sleep 0.5
    hellos=() missing=() looks=$((looks + 1))
    for ((i = 1; i < RLHF_NODES; i++)); do
      if [[ -f "$shared/hello.$i" ]]; then
        hellos+=("$(cat "$shared/hello.$i")")
      else
        missing+=("${hosts[i]% *}")
      fi
    done
    if ((looks % 120 == 0 && ${#missing[@]})); then
      echo "multinode: still waiting for ${missing[*]}: was the command given there, and is $shared" \
        "the same folder there?" >&2
    fi
  done
  write_whole "$shared/session" "$RLHF_SESSION ${hellos[*]}"
  beat >/dev/null 2>&1 &
  if ((code == 0)); then preflight "$@" || code=$?; fi
  if ((code)); then
    write_whole "$RLHF_SESSION/end" "$code"
    exit "$code"
  fi
  # Signals go on to the launcher, which stops the stage.
  bash "$@" &
  process=$!
  trap 'kill -TERM "$process" 2>/dev/null || true' TERM INT USR1 HUP
  # Not in one long wait: of two signals at once bash may keep the second until that ends.
  while kill -0 "$process" 2>/dev/null; do sleep 0.5 || true; done
  wait "$process" && code=0 || code=$?
  write_whole "$RLHF_SESSION/end" "$code"
  exit "$code"
}

# The first node's sign of life to the others, for as long as its command is there.
beat() {
  trap '' TERM INT USR1 HUP # they ask the run to stop, which takes its time
  local beats=0
  while kill -0 $$; do
    beats=$((beats + 1))
    write_whole "$RLHF_SESSION/alive" "$beats" || true
    sleep 2 || true
  done
}

# Another node: takes part in stage after stage, until the first node says that it was the last.
follow() {
  local token="$HOSTNAME-$RLHF_NODE_RANK-$$-$RANDOM" session="" number=1 words=() code
  until [[ -n "$session" ]]; do
    write_whole "$shared/hello.$RLHF_NODE_RANK" "$token"
    sleep 1
    read -ra words < <(cat "$shared/session" 2>/dev/null) || true
    if [[ " ${words[*]:1} " == *" $token "* ]]; then session="${words[0]}"; fi
  done
  export RLHF_SESSION="$session"
  # Between stages there is no stage to stop: the wish is noted for the first node.
  FOLLOWING=1
  local beat="" seen="" since=$SECONDS
  until [[ -f "$session/end" ]]; do
    # Its heartbeat, for whoever killed the first node's command could not say so.
    beat="$(cat "$session/alive" 2>/dev/null || true)"
    if [[ "$beat" != "$seen" ]]; then seen="$beat" since=$SECONDS; fi
    if ((SECONDS - since > silence)); then
      echo "multinode: error: no sign of life from $RLHF_MASTER_ADDR for $silence s;" \
        "the same commands, given again on all nodes, go on" >&2
      exit 75
    fi
    if [[ -f "$session/$number/command" ]]; then
      follow_stage "$number"
      number=$((number + 1)) since=$SECONDS
    fi
    sleep 0.3 || true
  done
  code="$(cat "$session/end")"
  exit "$code"
}

follow_stage() {
  local words=() word
  while IFS= read -r -d '' word; do words+=("$word"); done <"$RLHF_SESSION/$1/command"
  RLHF_STAGE_NUMBER="$1" join_stage "${words[@]}" || true
}

main "$@"
exit
