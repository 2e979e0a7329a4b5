#!/usr/bin/env bash
# OPT-13b on one node of eight GPUs of 80 GB, with a reward model of 350M.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/recipes/opt_13b_node.sh --run runs/opt_13b_node
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 1 --gpus 8 --gpu A100-80G
training --zero 3                          # 13B weights with Adam take 208 GB: an eighth on each GPU
all --gradient_checkpointing true
all --max_prompt_tokens 512 --max_response_tokens 512
sft --model facebook/opt-13b
sft --batch_size 128 --micro_batch_size 4
reward --model facebook/opt-350m           # a small one is quick, and whole on every GPU
reward --batch_size 64 --micro_batch_size 8
rlhf --preset modern
rlhf --critic_from reward                  # a critic of 13B would take as much again as the actor
rlhf --rollout_batch_size 256 --mini_batch_size 64 --micro_batch_size 4
rlhf --offload_idle true
evaluation --generation_batch_size 8       # a whole model, the reward model and the cache
go "$@"
exit
