#!/usr/bin/env bash
# Any model of the hub, or a folder, on one node; its first argument names it.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/recipes/any_model.sh Qwen/Qwen2.5-0.5B --run runs/qwen
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

MODEL="${1:?which model? a name on the hub, a folder, or tiny}"
shift

hardware --nodes 1 --gpus "${GPUS_PER_NODE:-8}" --gpu A100-80G
training --zero auto                       # weights spread where there are several GPUs
all --gradient_checkpointing true          # memory first: nothing is known of the model
all --max_prompt_tokens 512 --max_response_tokens 512
sft --model "$MODEL"
sft --batch_size 64 --micro_batch_size 2
reward --batch_size 64 --micro_batch_size 2
rlhf --preset modern
rlhf --rollout_batch_size 128 --mini_batch_size 64 --micro_batch_size 2
evaluation
go "$@"
exit
