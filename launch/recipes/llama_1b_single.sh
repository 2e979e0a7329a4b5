#!/usr/bin/env bash
# Llama-3.2-1B on one GPU of 80 GB.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/recipes/llama_1b_single.sh --run runs/llama_1b_single
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 1 --gpus 1 --gpu H100-80G
all --gradient_checkpointing true          # with 128,000 words in its vocabulary, logits are large
all --max_prompt_tokens 512 --max_response_tokens 512
sft --model meta-llama/Llama-3.2-1B
sft --batch_size 64 --micro_batch_size 8
sft --pack_tokens 2048                     # no time goes into padding
reward --batch_size 32 --micro_batch_size 4
rlhf --preset modern
rlhf --rollout_batch_size 128 --mini_batch_size 32 --micro_batch_size 4
rlhf --offload_idle true                   # Adam states wait in host memory during rollouts
evaluation
go "$@"
exit
