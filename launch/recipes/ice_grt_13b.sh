#!/usr/bin/env bash
# The paper's own: ICE-GRT 13B on 64 A100s. What the paper states is the preset ice_grt (bf16, actor
# 5e-6, critic 5e-7, clip 0.2, gamma 0.95, actor and critic from the SFT model); what it leaves open
# is decided here. Five samples a prompt go to people, who rank them, between two commands:
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl \
#     bash launch/multinode.sh --hostfile hosts launch/recipes/ice_grt_13b.sh --run runs/ice_grt --only sft sample
#   PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/multinode.sh --hostfile hosts launch/recipes/ice_grt_13b.sh --run runs/ice_grt --only reward rlhf evaluation
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 8 --gpus 8 --gpu A100-80G
all --preset ice_grt
training --zero 3                          # actor and critic with Adam take 416 GB: 6.5 GB on each GPU
all --gradient_checkpointing true
all --max_prompt_tokens 1024 --max_response_tokens 1024
sft --model meta-llama/Llama-2-13b-hf
sft --batch_size 256 --micro_batch_size 4
sft --epochs 3
sample --generation_batch_size 16         # the cache takes 1.7 GB a row
reward --batch_size 128 --micro_batch_size 2
rlhf --rollout_batch_size 512 --mini_batch_size 128 --micro_batch_size 2
evaluation --generation_batch_size 8       # a whole model, the reward model and the cache
go "$@"
exit
