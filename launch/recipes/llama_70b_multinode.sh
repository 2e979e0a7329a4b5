#!/usr/bin/env bash
# Llama-3.1-70B, all weights, on eight nodes of eight GPUs of 80 GB, with critic and reward model of 8B.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/multinode.sh --hostfile hosts launch/recipes/llama_70b_multinode.sh --run runs/llama_70b_multinode
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 8 --gpus 8 --gpu H100-80G
training --zero 3                          # 70B weights with Adam take 1120 GB: 18 GB on each GPU
all --gradient_checkpointing true
all --max_prompt_tokens 1024 --max_response_tokens 1024
sft --model meta-llama/Llama-3.1-70B
sft --learning_rate 5e-6                   # large models want a lower rate
sft --batch_size 256 --micro_batch_size 1
reward --model meta-llama/Llama-3.1-8B
reward --batch_size 128 --micro_batch_size 2
rlhf --preset modern
rlhf --critic_from reward                  # a critic of 70B would take as much again as the actor
rlhf --rollout_batch_size 512 --mini_batch_size 128 --micro_batch_size 1
rlhf --gather layers                       # 140 GB of weights are on no GPU at once
evaluation --gather layers                 # and are spread here, too (ZeRO-3 on several ranks)
go "$@"
exit
