#!/usr/bin/env bash
# Llama-3.1-8B, all weights, on one node of eight GPUs of 80 GB; critic and reward model of 8B, too.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/recipes/llama_8b_node.sh --run runs/llama_8b_node
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 1 --gpus 8 --gpu H100-80G
training --zero 3                          # actor and critic with Adam take 256 GB: 32 GB on each GPU
all --gradient_checkpointing true
all --max_prompt_tokens 1024 --max_response_tokens 1024
sft --model meta-llama/Llama-3.1-8B
sft --batch_size 128 --micro_batch_size 2
sft --pack_tokens 4096                     # no time goes into padding
reward --batch_size 64 --micro_batch_size 2
rlhf --preset modern
rlhf --rollout_batch_size 256 --mini_batch_size 64 --micro_batch_size 2
rlhf --offload_idle true
evaluation
go "$@"
exit
