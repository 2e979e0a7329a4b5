#!/usr/bin/env bash
# Rankings out of Label Studio, Argilla or a plain file join a rankings file. Arguments go on to import_rankings.py.
#
#   bash step2_reward/import.sh --files export.json --run runs/mine
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../launch/setup.sh" >&2
source "$here/../launch/env.sh"
exec "$PYTHON" "$here/import_rankings.py" "$@"
