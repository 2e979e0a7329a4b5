"""`--help` of a launcher that starts ranks."""

import subprocess

from tests.stages import ROOT, environment


def test_help_is_the_stages_own_and_no_failure():
    done = subprocess.run(
        ["bash", "step2_reward/train.sh", "--help"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--margin" in done.stdout and "settings of the stage 'reward'" in done.stdout
    assert "launcher ended" not in done.stderr
