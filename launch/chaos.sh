#!/usr/bin/env bash
# Kills runs at random moments, starts them again, and compares them with runs that were not killed:
#
#   bash launch/chaos.sh [--kills N] [--seed S] [--only WORD…] [--folder DIR]
#
# Each stage on 1 and 2 ranks, ZeRO 0 and 3, with and without LoRA; 50 kills by default, about an
# hour on two cores. Code 0 only when every comparison held; the last line says how many.
set -euo pipefail

main() {
  local here
  here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
  bash "$here/setup.sh" --tests
  source "$here/env.sh"
  cd "$ROOT"
  exec "$PYTHON" -m tests.chaos "$@"
}

main "$@"
exit
