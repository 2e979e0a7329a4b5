#!/usr/bin/env bash
# Talks to one model, or to several side by side, with the reward model's score for each answer.
#
#   bash launch/chat.sh MODEL [MODEL…] [--reward FOLDER] [--serve true] [--temperature 0.7] [--seed N] …
#   bash launch/chat.sh runs/quickstart           # a run's SFT model, actor and reward model
#   echo "a question" | bash launch/chat.sh runs/quickstart/models/actor
#
# MODEL is a folder (whole weights, or adapters), a hub name, or a run's folder. --serve true opens a
# page on 127.0.0.1 instead. --help lists all settings; those of sampling can be changed in the chat.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/setup.sh" >&2
source "$here/env.sh"
models=()
while (($#)) && [[ "$1" != -* ]]; do
  models+=("$1")
  shift
done
if ((${#models[@]})); then set -- --models "${models[@]}" "$@"; fi
exec "$PYTHON" -m common.chat.main "$@"
