#!/usr/bin/env bash
# AI feedback: a language model behind an endpoint ranks samples. Arguments go on to ai_rank.py.
#
#   bash step2_reward/ai_rank.sh --samples FILE --endpoint http://127.0.0.1:8000/v1 --judge_model NAME --run runs/mine
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../launch/setup.sh" >&2
source "$here/../launch/env.sh"
exec "$PYTHON" "$here/ai_rank.py" "$@"
