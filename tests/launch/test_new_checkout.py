"""Launchers in a checkout that has no environment yet, or half of one."""

import os
import shutil
import subprocess

import pytest

from tests.stages import ROOT

LAUNCHERS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("launch", "step1_sft", "step2_reward", "step3_rlhf")
    for path in (ROOT / folder).glob("*.sh")
    if path.name not in ("env.sh", "setup.sh", "recipe.sh", "multinode.sh")
)
"""All that a user starts; `multinode.sh` has tests of its own."""


def start(checkout, script, *words):
    """What a launcher says where the set-up fails: its code and all its output."""
    for folder in {"launch", script.split("/")[0]}:
        shutil.copytree(ROOT / folder, checkout / folder)
    (checkout / "launch/setup.sh").write_text("echo 'setup: no Python' >&2; exit 2\n")
    done = subprocess.run(
        ["bash", script, *words],
        cwd=checkout,
        env={k: v for k, v in os.environ.items() if k != "RLHF_SHOW"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_launcher_sets_up_before_anything_else(tmp_path, script):
    words = {
        "launch/pipeline.sh": ["my.yaml"],
        "launch/plan.sh": ["launch/recipes/llama_8b_node.sh"],
        "launch/ablate.sh": ["kl"],
        "launch/broken.sh": ["labels", "runs/a", "runs/b"],
        "launch/evaluate.sh": ["models/sft"],
        "launch/chat.sh": ["models/sft"],
        "launch/judge.sh": ["table"],
    }
    assert start(tmp_path, script, *words.get(script, [])) == (2, "setup: no Python\n")
