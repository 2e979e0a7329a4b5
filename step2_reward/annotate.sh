#!/usr/bin/env bash
# Serves the page on which people rank samples, until it is stopped; with --export FILE writes what
# they ranked. Arguments go on to annotate.py. README.md in this folder tells a project's week.
#
#   bash step2_reward/annotate.sh --run runs/mine --labelers anna ben carla
#   bash step2_reward/annotate.sh --run runs/mine --export runs/mine/annotate/rankings.jsonl
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/../launch/setup.sh" >&2
source "$here/../launch/env.sh"
exec "$PYTHON" "$here/annotate.py" "$@"
