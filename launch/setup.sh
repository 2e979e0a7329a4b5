#!/usr/bin/env bash
# Sets up the virtual environment .venv in this checkout: nothing global, nothing twice.
#
#   bash launch/setup.sh               what running needs
#   bash launch/setup.sh --tests       and the test tools
#   bash launch/setup.sh --benchmark   and what benchmarks compare with
#
# PYTHON=/path/to/python3.11 chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CPU_TORCH="torch==2.13.0"
CPU_INDEX="https://download.pytorch.org/whl/cpu"

find_python() {
  local name
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$name" -c 'import sys, venv; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "setup: no Python 3.11 or newer with venv was found; install one (for example the package" \
    "python3-venv), or set PYTHON=/path/to/python" >&2
  return 2
}

requirements() {
  case "${1:-}" in
    --benchmark) cat requirements.txt ;;
    --tests) sed '/^# --- benchmark tools/,$d' requirements.txt ;;
    *) sed '/^# --- test tools/,$d' requirements.txt ;;
  esac
}

# The browser that tests of the labeling page drive; where there is none, they are skipped.
install_browser() {
  if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then return; fi
  if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
    echo "setup: installing Chromium for the browser tests"
    { apt-get install -qq -y --no-install-recommends chromium ||
      { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; }; } \
      >/dev/null 2>&1 </dev/null && return
  fi
  echo "setup: no Chromium, and it could not be installed: the browser tests will be skipped" \
    "(as root: apt-get install chromium; or: .venv/bin/playwright install chromium)"
}

# The stamp says what .venv holds: a second run with the same requirements installs nothing.
stamp() { requirements "$@" | cksum | cut -d' ' -f1; }

mode="${1:-}"
# Each mode holds what those before it hold, so its stamp serves them too.
for larger in --benchmark --tests ""; do
  [[ -f ".venv/stamp${larger:--run}-$(stamp "$larger")" ]] && exit 0
  [[ "$larger" == "$mode" ]] && break
done

python="$(find_python)"
if ! .venv/bin/python -m pip --version >/dev/null 2>&1 &&
  ! .venv/bin/python -m ensurepip >/dev/null 2>&1; then
  # Nothing there, or what an interrupted set-up left (Debian's python3 without python3-venv makes
  # an environment that lacks pip).
  rm -rf .venv
  "$python" -m venv .venv || {
    rm -rf .venv
    echo "setup: $python cannot make a virtual environment; install the package python3-venv" >&2
    exit 2
  }
fi
# The checkout's packages can be imported from anywhere: `.venv/bin/python step1_sft/main.py --help`.
pwd >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/checkout.pth"
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)

if ! nvidia-smi -L 2>/dev/null | grep -q GPU && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
  echo "setup: no GPU here, installing the CPU build of torch"
  # Without its dependencies, which the requirements bring: they are not on that index.
  "${pip[@]}" --no-deps --retries 0 --timeout 15 --index-url "$CPU_INDEX" "$CPU_TORCH" 2>/dev/null ||
    "${pip[@]}" "$CPU_TORCH"
fi
echo "setup: installing requirements into .venv"
"${pip[@]}" -r <(requirements "$mode")
if [[ -n "$mode" ]]; then DEBIAN_FRONTEND=noninteractive install_browser; fi
rm -f .venv/stamp-*
touch ".venv/stamp${mode:--run}-$(stamp "$mode")"
echo "setup: done"
