#!/usr/bin/env bash
# The eight criteria of a finished evaluation, judged by people or by a language model: who wrote
# which answer is hidden from them. RUN/evaluation/criteria.md has the table (the paper's Table 3).
#
#   bash launch/judge.sh people --run RUN                  makes the file for the annotation pages
#   bash launch/judge.sh people --run RUN --ratings FILE   reads what they exported
#   bash launch/judge.sh ai --run RUN --endpoint http://127.0.0.1:8000/v1 --judge_model NAME
#   bash launch/judge.sh table --run RUN [--weights accuracy=2 completeness=1]
#
# An AI judge is asked for ratings (eight criteria of each answer), and for orders: which of each two
# models' answers is better, both ways round (--compare false leaves those out). The command fails
# if fewer than half of the prompts could be judged.
#
# The same command goes on where it was stopped; an AI judge's answers are kept, and none that can be
# read is paid for twice. The API key, if one is needed, is taken from RLHF_JUDGE_KEY.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/setup.sh" >&2
source "$here/env.sh"
exec "$PYTHON" -m common.evaluation.judges "$@"
