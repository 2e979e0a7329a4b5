#!/usr/bin/env bash
# OPT-1.3b on one GPU of 80 GB, with a reward model of 350M.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/recipes/opt_1.3b_single.sh --run runs/opt_1.3b_single
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 1 --gpus 1 --gpu A100-80G
all --max_prompt_tokens 512 --max_response_tokens 512
all --gradient_checkpointing true          # states of actor and critic leave little for activations
sft --model facebook/opt-1.3b
sft --batch_size 64 --micro_batch_size 8
reward --model facebook/opt-350m           # a smaller one scores in a quarter of the time
reward --batch_size 32 --micro_batch_size 8
rlhf --preset modern
rlhf --rollout_batch_size 128 --mini_batch_size 32 --micro_batch_size 4
rlhf --offload_idle true                   # Adam states wait in host memory during rollouts
evaluation
go "$@"
exit
