# Sourced by every launcher: what this machine is, and how a stage is started on it.
#
# Sets ROOT, PYTHON, DEVICE (cpu or cuda), and defines `launch_stage`, `note_start`, `free_port`.

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
note_start() { export RLHF_STAGE_STARTED="$(date +%s.%N)"; }

# launch_stage RANKS SCRIPT [ARGUMENTS…]: one stage under the deepspeed launcher, on this machine.
# SCRIPT is a file, or a module as `-m common.evaluation.main`.
launch_stage() {
  local ranks="$1"
  shift
  note_start
  if [[ "$DEVICE" == cpu ]]; then
    local cores
    cores="$(nproc)"
    # Threads of all ranks together fill the cores: more would make each slower.
    export OMP_NUM_THREADS="${OMP_NUM_THREADS_OVERRIDE:-$((cores / ranks > 0 ? cores / ranks : 1))}"
  elif ((ranks > GPUS)); then
    echo "launch: $ranks ranks asked for, but this machine has $GPUS GPU(s)" >&2
    return 2
  fi
  local what=("$1")
  if [[ "$1" == -m ]]; then
    what=(--module "$2")
    shift
  fi
  shift
  # A session of its own: a signal to this script is passed on to the launcher and every rank,
  # which the deepspeed command by itself would leave behind.
  setsid deepspeed --quiet --num_gpus "$ranks" --master_addr 127.0.0.1 --master_port "$(free_port)" \
    "${what[@]}" "$@" </dev/null &
  local group=$! status=0
  trap 'kill -TERM -- "-$group" 2>/dev/null' TERM
  trap 'kill -INT -- "-$group" 2>/dev/null' INT
  while true; do
    wait "$group" && status=0 || status=$?
    kill -0 "$group" 2>/dev/null || break
  done
  trap - TERM INT
  return "$status"
}
