# Sourced by every launcher: what this machine is, and how a stage is started on it.
#
# Sets ROOT, PYTHON, DEVICE (cpu or cuda), and defines `launch_stage` and `launch_plain`.
#
# Both end with the stage's own code: 0 done; 2 an error that says what to do; 75 stopped by
# SIGTERM, SIGUSR1, SIGHUP or Ctrl-C, or because another node was lost, and the same command goes
# on; 70 ended as hung; 137 stopped at once by a second signal; anything else: a crash.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="$ROOT/.venv/bin/python"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export PATH="$ROOT/.venv/bin:$PATH"
export TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1

if nvidia-smi -L 2>/dev/null | grep -q GPU; then
  DEVICE=cuda
  GPUS="$(nvidia-smi -L | grep -c GPU)"
else
  DEVICE=cpu
  GPUS=0
  export DS_ACCELERATOR=cpu
  # Threads that wait spin for a moment, then sleep: spinning for long makes a training step up to
  # ten times slower beside any other busy process, and sleeping at once costs a third of the speed.
  export GOMP_SPINCOUNT=1000
  # Tensors of some megabytes come and go at every step: memory once had from the system is kept.
  export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592
fi

free_port() {
  "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Stages count their time from here: loading Python and the launcher belong to it.
# And they save and end when this shell is gone, killed so that it could not pass that on.
note_start() { export RLHF_STAGE_STARTED="$(date +%s.%N)" RLHF_SHELL="$HOSTNAME $$"; }

# On a CPU, threads of all ranks together fill the cores: more would make each slower.
share_threads() {
  if [[ "$DEVICE" != cpu ]]; then return 0; fi
  local cores
  cores="$(nproc)"
  export OMP_NUM_THREADS="${OMP_NUM_THREADS_OVERRIDE:-$((cores / $1 > 0 ? cores / $1 : 1))}"
}

# launch_stage RANKS SCRIPT [ARGUMENTS…]: one stage under the deepspeed launcher, on this machine.
# SCRIPT is a file, or a module as `-m common.evaluation.main`.
launch_stage() {
  local ranks="$1"
  shift
  if [[ -n "${RLHF_SESSION:-}" && -e "$RLHF_SESSION/stop" ]]; then return 75; fi
  note_start
  share_threads "$ranks"
  if [[ "$DEVICE" == cuda ]] && ((ranks > GPUS)); then
    echo "launch: $ranks ranks asked for, but this machine has $GPUS GPU(s)" >&2
    return 2
  fi
  local what=("$1")
  if [[ "$1" == -m ]]; then
    what=(--module "$2")
    shift
  fi
  shift
  if [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then # read by people: no ranks, no launcher
    "$PYTHON" "${what[@]/#--module/-m}" --help
    return
  fi
  if ((${RLHF_NODES:-1} > 1)); then
    launch_on_all_nodes "$ranks" "${what[@]}" "$@"
    return
  fi
  supervise gentle deepspeed --quiet --num_gpus "$ranks" --master_addr 127.0.0.1 \
    --master_port "$(free_port)" "${what[@]}" "$@"
}

# Under multinode.sh, on the first node. The folder of the stage is shared: a file in it stops the
# stage on all nodes. Without ssh the others wait there for the command; its words end with a 0 byte.
launch_on_all_nodes() {
  RLHF_STAGE_NUMBER=$((${RLHF_STAGE_NUMBER:-0} + 1))
  local notes="$RLHF_SESSION/$RLHF_STAGE_NUMBER"
  mkdir -p "$notes"
  if [[ -n "${RLHF_NO_SSH:-}" ]]; then
    printf '%s\0' "$PWD" "$@" >"$notes/.command"
    mv "$notes/.command" "$notes/command"
    join_stage "$PWD" "$@"
    return
  fi
  # The shell of this run is on this node only; ranks of the others look for the file.
  local forwarded="$notes/environment"
  grep -v -E '^OMP_NUM_THREADS=' "$DS_ENV_FILE" >"$forwarded" || true
  chmod 600 "$forwarded"
  printf '%s\n' "OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}" "RLHF_SHELL=$RLHF_SHELL" \
    "RLHF_STAGE_STARTED=$RLHF_STAGE_STARTED" "RLHF_STOP_FILE=$notes/stop" \
    "RLHF_STATUS_FILE=$notes/status" "PATH=$PATH" >>"$forwarded"
  local ssh=()
  # Without it, the connection to a node whose cable is cut stays for hours.
  export PDSH_SSH_ARGS_APPEND="${PDSH_SSH_ARGS_APPEND:--o ServerAliveInterval=10}"
  if [[ -n "${RLHF_SSH_PORT:-}" ]]; then ssh=(--ssh_port "$RLHF_SSH_PORT"); fi
  local ranks="$1"
  shift
  SHARED_NOTES="$notes" DS_ENV_FILE="$forwarded" supervise gentle deepspeed --quiet \
    --hostfile "$RLHF_HOSTFILE" --num_gpus "$ranks" --master_addr "$RLHF_MASTER_ADDR" \
    --master_port "$RLHF_MASTER_PORT" "${ssh[@]}" "$@"
}

# join_stage FOLDER RANKS SCRIPT [ARGUMENTS…]: this node's part of a stage, in the no-ssh mode.
join_stage() {
  local folder="$1" ranks="$2" code=0
  shift 2
  if ! cd "$folder"; then
    echo "launch: $folder is not on this node: checkout and folders must be at the same place" >&2
    touch "$RLHF_SESSION/$RLHF_STAGE_NUMBER/failed.$RLHF_NODE_RANK"
    return 2
  fi
  share_threads "$ranks"
  note_start
  SHARED_NOTES="$RLHF_SESSION/$RLHF_STAGE_NUMBER" supervise gentle deepspeed --quiet \
    --hostfile "$RLHF_HOSTFILE" --num_gpus "$ranks" --no_ssh --node_rank "$RLHF_NODE_RANK" \
    --master_addr "$RLHF_MASTER_ADDR" --master_port "$RLHF_MASTER_PORT" "$@" || code=$?
  # A node that failed by itself says so: the others may wait for it in a collective.
  if ((code != 0 && code != 75)); then
    touch "$RLHF_SESSION/$RLHF_STAGE_NUMBER/failed.$RLHF_NODE_RANK" 2>/dev/null || true
  fi
  return "$code"
}

# launch_plain COMMAND…: one stage that needs no ranks.
launch_plain() {
  note_start
  supervise plain "$@"
}

# A session of its own, for the deepspeed command by itself leaves ranks behind. It must not get
# signals that ask to stop: it would end the ranks one by one. They look for a file instead.
supervise() {
  SUPERVISED_MANNER="$1" SUPERVISED_GROUP="" SUPERVISED_NOTES="${SHARED_NOTES:-$(mktemp -d)}"
  shift
  local status=0 code=""
  RLHF_STOP_FILE="$SUPERVISED_NOTES/stop" RLHF_STATUS_FILE="$SUPERVISED_NOTES/status" \
    setsid "$@" </dev/null &
  SUPERVISED_GROUP=$!
  if ((STOP_ASKED)); then ask_to_stop; fi # it came while the stage was being started
  if [[ -n "${SHARED_NOTES:-}" ]]; then watch_other_nodes & fi
  # A signal ends a wait; the last one gives the code.
  while kill -0 "$SUPERVISED_GROUP" 2>/dev/null; do wait "$SUPERVISED_GROUP" || true; done
  wait "$SUPERVISED_GROUP" && status=0 || status=$?
  end_session "$SUPERVISED_GROUP"
  code="$(cat "$SUPERVISED_NOTES/status" 2>/dev/null || true)"
  if [[ -z "${SHARED_NOTES:-}" ]]; then rm -rf "$SUPERVISED_NOTES"; fi
  SUPERVISED_NOTES=""
  if ((STOP_ASKED > 1)); then return 137; fi
  # The status is rank 0's: on another node it may come a moment later, or, with rank 0's, not at all.
  if [[ "${RLHF_NODE_RANK:-0}" != 0 ]]; then return "$status"; fi
  if [[ "$SUPERVISED_MANNER" == gentle && "$status" == 0 && -z "$code" ]]; then
    echo "launch: the launcher ended before its ranks (was it killed?); the same command goes on" >&2
    return 1
  fi
  # A stage that had not come to its own handlers when it was asked to stop.
  if [[ "$SUPERVISED_MANNER" == plain && "$STOP_ASKED" == 1 ]] && ((status > 128)); then return 75; fi
  return "${code:-$status}"
}

# Ends this node's part when another node has failed; its own ranks get half a minute to say why.
watch_other_nodes() {
  trap - TERM INT USR1 HUP
  local seconds=0
  while kill -0 "$SUPERVISED_GROUP" 2>/dev/null; do
    if compgen -G "$SHARED_NOTES/failed.*" >/dev/null; then seconds=$((seconds + 1)); fi
    if ((seconds > 30)); then
      kill -TERM -- "-$SUPERVISED_GROUP" 2>/dev/null || true
      return
    fi
    sleep 1
  done
}

# Signals are looked after from here on; between stages there is nothing to save.
STOP_ASKED=0
SUPERVISED_NOTES=""
on_signal() {
  STOP_ASKED=$((STOP_ASKED + 1))
  if [[ -z "$SUPERVISED_NOTES" && -n "${FOLLOWING:-}" ]]; then
    touch "$RLHF_SESSION/stop" # the first node looks for it before the next stage
    return
  fi
  if [[ -z "$SUPERVISED_NOTES" ]]; then exit 75; fi
  if [[ -n "$SUPERVISED_GROUP" ]]; then ask_to_stop; fi
}
trap on_signal TERM INT USR1 HUP

ask_to_stop() {
  if ((STOP_ASKED > 1)); then
    kill -KILL -- "-$SUPERVISED_GROUP" 2>/dev/null || true
  elif [[ "$SUPERVISED_MANNER" == gentle ]]; then
    echo "launch: stopping after this step and saving; once more: stop at once" >&2
    touch "$SUPERVISED_NOTES/stop"
  else
    kill -TERM -- "-$SUPERVISED_GROUP" 2>/dev/null || true
  fi
}

# What is left of a session when its first process is gone: asked to end, then made to.
end_session() {
  local signal
  for signal in TERM 0 0 0 KILL; do
    kill -"$signal" -- "-$1" 2>/dev/null || return 0
    sleep 0.5
  done
}

# write_whole FILE TEXT: nobody ever reads a part of it.
write_whole() {
  local partial="${1%/*}/.partial.${1##*/}.$$" # hidden: nobody clears it away with the old ones
  printf '%s\n' "$2" >"$partial"
  mv "$partial" "$1"
}
