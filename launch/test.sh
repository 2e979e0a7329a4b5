#!/usr/bin/env bash
# Sets up, lints, and runs the tests. Arguments go on to pytest:
#
#   bash launch/test.sh                 all but the slow ones, as many at a time as there are cores
#   bash launch/test.sh -m slow         the slow ones
#   bash launch/test.sh tests/common/ppo -k gae
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh --tests
source launch/env.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$PYTHON" -m ruff check --quiet .
"$PYTHON" -m ruff format --quiet --check .
if (($# == 0)); then set -- --numprocesses "$(env -u OMP_NUM_THREADS nproc)" --dist loadfile; fi
exec "$PYTHON" -m pytest "$@"
