#!/usr/bin/env bash
# Llama-3.1-8B on one GPU of 80 GB by LoRA; in PPO all four models are adapters on one base.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/recipes/llama_8b_lora_single.sh --run runs/llama_8b_lora_single
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 1 --gpus 1 --gpu H100-80G
training --lora_rank 16 --lora_alpha 32    # only adapters have gradients and Adam states
all --gradient_checkpointing true
all --max_prompt_tokens 512 --max_response_tokens 512
sft --model meta-llama/Llama-3.1-8B
sft --learning_rate 1e-4                   # adapters start at nothing and bear ten times the rate
sft --batch_size 64 --micro_batch_size 4
reward --learning_rate 1e-4
reward --batch_size 32 --micro_batch_size 4
rlhf --preset modern
rlhf --actor_learning_rate 1e-5 --critic_learning_rate 5e-5   # as for SFT: adapters bear more
rlhf --one_base true                       # 16 GB of weights in place of 64
rlhf --rollout_batch_size 128 --mini_batch_size 32 --micro_batch_size 2
rlhf --offload_idle true
evaluation
go "$@"
exit
