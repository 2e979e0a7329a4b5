#!/usr/bin/env bash
# Simulated labelers rank samples of the embedded domain. Arguments go on to rank.py.
#
#   bash step2_reward/rank.sh --config my.yaml --run runs/mine
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../launch/setup.sh" >&2
source "$here/../launch/env.sh"
exec "$PYTHON" "$here/rank.py" "$@"
