#!/usr/bin/env bash
# OPT-125m in all three stages on one GPU: to see a whole pipeline work on a real language model.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/recipes/opt_125m_single.sh --run runs/opt_125m_single
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 1 --gpus 1 --gpu A100-40G
all --max_prompt_tokens 256 --max_response_tokens 256   # what it can say well is short
sft --model facebook/opt-125m
sft --learning_rate 2e-5                   # small models bear a higher rate
sft --batch_size 64 --micro_batch_size 16
sft --epochs 2
reward --batch_size 32 --micro_batch_size 8
rlhf --preset modern
rlhf --rollout_batch_size 128 --mini_batch_size 64 --micro_batch_size 16
evaluation
go "$@"
exit
