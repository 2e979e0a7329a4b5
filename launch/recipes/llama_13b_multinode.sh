#!/usr/bin/env bash
# Llama-2-13b, all weights, on two nodes of eight GPUs of 80 GB.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/multinode.sh --hostfile hosts launch/recipes/llama_13b_multinode.sh --run runs/llama_13b_multinode
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 2 --gpus 8 --gpu A100-80G
training --zero 3                          # actor and critic with Adam take 416 GB: 26 GB on each GPU
all --gradient_checkpointing true
all --max_prompt_tokens 1024 --max_response_tokens 1024
sft --model meta-llama/Llama-2-13b-hf
sft --batch_size 128 --micro_batch_size 2
reward --batch_size 64 --micro_batch_size 1
rlhf --preset modern
rlhf --rollout_batch_size 256 --mini_batch_size 64 --micro_batch_size 2
rlhf --offload_idle true
evaluation --generation_batch_size 8       # a whole model, the reward model and the cache
go "$@"
exit
