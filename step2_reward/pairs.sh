#!/usr/bin/env bash
# Rankings become pairs. Arguments go on to pairs.py.
#
#   bash step2_reward/pairs.sh --config my.yaml --run runs/mine
#   bash step2_reward/pairs.sh --run runs/mine --rankings labels.jsonl --min_agreement 0.5
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../launch/setup.sh" >&2
source "$here/../launch/env.sh"
exec "$PYTHON" "$here/pairs.py" "$@"
