"""What every launcher sources."""

import os
import shutil
import subprocess

import pytest

from tests.stages import ROOT


@pytest.fixture
def checkout(tmp_path):
    """A checkout without an environment, whose set-up notes that it was called, and makes one."""
    (tmp_path / "launch").mkdir()
    shutil.copy(ROOT / "launch/env.sh", tmp_path / "launch")
    (tmp_path / "launch/setup.sh").write_text(
        'cd "$(dirname "$0")/.." && echo "setup: installing" && mkdir -p .venv/bin\n'
        "ln -s /bin/echo .venv/bin/python\n"
    )
    return tmp_path


def start(checkout, **environment):
    """What a launcher of one line says: its output and its errors."""
    done = subprocess.run(
        ["bash", "-c", 'set -euo pipefail; source launch/env.sh; "$PYTHON" stage'],
        cwd=checkout,
        env={k: v for k, v in os.environ.items() if k != "RLHF_SHOW"} | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_launcher_in_a_new_checkout_sets_up_first_and_once(checkout):
    assert start(checkout) == (0, "stage\n", "setup: installing\n")
    assert start(checkout) == (0, "stage\n", "")


def test_showing_what_would_be_run_installs_nothing(checkout):
    code, _, said = start(checkout, RLHF_SHOW="1")
    assert code != 0 and "setup" not in said and not (checkout / ".venv").exists()


def test_a_set_up_that_fails_ends_the_launcher(checkout):
    (checkout / "launch/setup.sh").write_text("echo 'setup: no Python' >&2; exit 2")
    assert start(checkout) == (2, "", "setup: no Python\n")
