#!/usr/bin/env bash
# SFT → sample → rank → reward → PPO → evaluation on the embedded domain, on any machine.
#
#   bash launch/quickstart.sh [--processes N] [--seed N] [--run DIR] [--fresh] [--restart STAGE]
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
RLHF_LAUNCHER=quickstart.sh exec bash "$here/pipeline.sh" "$here/quickstart.yaml" "$@"
