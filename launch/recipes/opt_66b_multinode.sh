#!/usr/bin/env bash
# OPT-66b on eight nodes of eight GPUs of 80 GB, with a reward model of 1.3B.
#
#   SFT_DATA=sft.jsonl PROMPTS=prompts.jsonl RANKINGS=rankings.jsonl EVAL_DATA=held_out.jsonl \
#     bash launch/multinode.sh --hostfile hosts launch/recipes/opt_66b_multinode.sh --run runs/opt_66b_multinode
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../recipe.sh"

hardware --nodes 8 --gpus 8 --gpu A100-80G
training --zero 3                          # 66B weights with Adam take 1056 GB: 17 GB on each GPU
all --gradient_checkpointing true
all --max_prompt_tokens 512 --max_response_tokens 512
sft --model facebook/opt-66b
sft --batch_size 256 --micro_batch_size 4
reward --model facebook/opt-1.3b
reward --batch_size 128 --micro_batch_size 2
rlhf --preset modern
rlhf --critic_from reward                  # a critic of 66B would not pay
rlhf --rollout_batch_size 512 --mini_batch_size 128 --micro_batch_size 2
rlhf --gather layers                       # 132 GB of weights are on no GPU at once
evaluation --gather layers                 # and are spread here, too (ZeRO-3 on several ranks)
go "$@"
exit
