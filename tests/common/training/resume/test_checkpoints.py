"""When checkpoints are written, what a run goes on from, and what happens when one cannot be."""

import errno
import os
import platform
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch

from common.errors import UserError
from common.ppo.kl import KLController
from common.training.resume import checkpoints as module
from common.training.resume import folders
from common.training.resume.arguments import CheckpointArguments
from common.training.resume.checkpoints import Checkpoints
from common.training.resume.folders import Label, labels
from common.training.resume.signals import Stopped, StopRequests
from tests.disks import make_room, small_disk
from tests.ranks import run_ranks

QUIET = {"checkpoint_minutes": 0, "checkpoint_epochs": False}


class Counter:
    """A state that grows, with a tensor in it."""

    def __init__(self) -> None:
        self.count, self.weights = 0, torch.zeros(3)

    def advance(self) -> None:
        self.count += 1
        self.weights += torch.rand(3)  # of the global generator

    def state_dict(self) -> dict:
        return {"count": self.count, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.count, self.weights = state["count"], state["weights"]


def build(root, **settings) -> tuple[Checkpoints, Counter]:
    counter = Counter()
    said = CheckpointArguments(**(QUIET | settings))
    return Checkpoints(root, said, engines={}, shared={"counter": counter}), counter


def train(root, until: int, steps: int = 10, **settings) -> Counter:
    """A run that goes on to step `until` and is then, as it were, killed."""
    made, counter = build(root, **settings)
    for step in range(made.restore() + 1, until + 1):
        counter.advance()
        made.after(step, {"loss": 1.0 / step}, loss=1.0 / step, last=step == steps)
    made.wait()
    return counter


@pytest.fixture(autouse=True)
def no_requests(monkeypatch):
    monkeypatch.setattr(module, "REQUESTS", StopRequests())
    torch.manual_seed(0)


def test_a_run_that_goes_on_ends_as_one_that_was_not_interrupted(tmp_path):
    whole = train(tmp_path / "whole", 10)
    torch.manual_seed(0)
    for until in (4, 5, 9, 10):
        found = train(tmp_path / "parts", until, checkpoint_steps=2)
        torch.manual_seed(random.randrange(2**31))  # what a new process would begin with
    assert found.count == whole.count == 10 and found.weights.equal(whole.weights)


def test_steps_of_no_checkpoint_are_done_again(tmp_path):
    train(tmp_path, 5, checkpoint_steps=2)
    made, counter = build(tmp_path)
    assert made.restore() == 4 and counter.count == 4
    assert made.values == {"loss": 0.25}


def test_a_state_that_it_was_written_without_is_told(tmp_path):
    train(tmp_path, 5, checkpoint_steps=2)
    settings = CheckpointArguments(**QUIET)
    states = {"counter": Counter(), "average": Counter()}
    made = Checkpoints(tmp_path, settings, engines={}, shared=states)
    with pytest.raises(UserError, match="written without average; take back .*ema_decay"):
        made.restore()


def test_the_newest_and_the_best_are_kept(tmp_path):
    made, counter = build(tmp_path, checkpoint_steps=1, checkpoint_keep=2)
    made.restore()
    for step, loss in enumerate((3.0, 1.0, 2.0, None, 2.5, 2.0), start=1):
        counter.advance()
        made.after(step, {}, loss=loss)
    made.wait()
    assert labels(tmp_path) == [Label(2), Label(5), Label(6)]
    assert (tmp_path / "best").read_text() == "step_00000002\n"
    assert (tmp_path / "latest").read_text() == "step_00000006\n"


def saved_at(tmp_path, monkeypatch, seconds_a_step, cost=0.0, epochs=(), **settings):
    """Steps of 12 after which a checkpoint is written, by a clock that only steps move."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    made, _ = build(tmp_path, **settings)
    made.restore()
    saved = []

    def save(loss=None):
        saved.append(made.step)
        clock[0] += cost
        made._saved_at, made._cost = clock[0], cost

    monkeypatch.setattr(made, "save", save)
    for step in range(1, 13):
        clock[0] += seconds_a_step
        made.after(step, {}, epoch_ended=step in epochs, last=step == 12)
    return saved


def test_by_number_of_steps(tmp_path, monkeypatch):
    assert saved_at(tmp_path, monkeypatch, 1.0, checkpoint_steps=5) == [5, 10, 12]


def test_by_minutes(tmp_path, monkeypatch):
    assert saved_at(tmp_path, monkeypatch, 25.0, checkpoint_minutes=1) == [3, 6, 9, 12]


def test_by_minutes_but_no_more_than_a_twentieth_of_the_time(tmp_path, monkeypatch):
    # ten seconds each: no sooner than after 200
    found = saved_at(tmp_path, monkeypatch, 50.0, cost=10.0, checkpoint_minutes=1)
    assert found == [2, 6, 10, 12]


def test_passes_are_under_the_same_limit(tmp_path, monkeypatch):
    every = range(1, 13)
    found = saved_at(tmp_path, monkeypatch, 50.0, cost=10.0, epochs=every, checkpoint_epochs=True)
    assert found == [1, 5, 9, 12]


def test_at_the_end_of_each_pass(tmp_path, monkeypatch):
    found = saved_at(tmp_path, monkeypatch, 1.0, epochs=(4, 8), checkpoint_epochs=True)
    assert found == [4, 8, 12]


def test_the_last_step_is_saved_whatever_is_set(tmp_path, monkeypatch):
    assert saved_at(tmp_path, monkeypatch, 1.0, epochs=(4, 8)) == [12]


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, seed, capsys):
    train(tmp_path, 6, checkpoint_steps=3)
    draw = random.Random(seed)
    newest = tmp_path / "step_00000006"
    file = draw.choice([p for p in sorted(newest.rglob("*")) if p.is_file()])
    content = bytearray(file.read_bytes())
    place = draw.randrange(len(content))
    if draw.random() < 0.3:
        content = content[:place]
    else:
        content[place] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    found = train(tmp_path, 10, checkpoint_steps=3)
    said = capsys.readouterr().out
    assert "damaged checkpoint" in said and f"step_00000006: {file.relative_to(newest)}" in said
    assert "going on after step 3" in said
    torch.manual_seed(0)
    assert found.weights.equal(train(tmp_path / "whole", 10).weights)


def test_no_whole_checkpoint_is_an_error_and_not_a_new_start(tmp_path):
    train(tmp_path, 6, checkpoint_steps=3)
    for name in ("step_00000003", "step_00000006"):
        (tmp_path / name / "shared.json").write_text("{}")
    for _ in range(2):  # the same command again changes nothing
        with pytest.raises(UserError, match="no checkpoint is whole.*shared.json.*--fresh true"):
            train(tmp_path, 10)
        assert labels(tmp_path) == [Label(3), Label(6)]


def test_a_half_written_one_is_not_looked_at(tmp_path):
    train(tmp_path, 6, checkpoint_steps=3)
    (tmp_path / "step_00000006").rename(tmp_path / ".step_00000006.partial")
    made, _ = build(tmp_path)
    assert made.restore() == 3
    assert not (tmp_path / ".step_00000006.partial").exists()


# A request to stop.


def test_a_request_ends_the_run_after_its_step_with_a_checkpoint(tmp_path):
    module.REQUESTS.install()
    try:
        made, counter = build(tmp_path)
        made.restore()
        counter.advance()
        made.after(1, {})
        os.kill(os.getpid(), signal.SIGTERM)
        counter.advance()
        with pytest.raises(Stopped):
            made.after(2, {})
    finally:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == 2 else signal.SIG_DFL)
    assert labels(tmp_path) == [Label(2)]
    module.REQUESTS = StopRequests()
    assert build(tmp_path)[0].restore() == 2


def test_the_launchers_file_is_a_request(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_STOP_FILE", str(tmp_path / "stop"))
    made, counter = build(tmp_path / "checkpoints")
    made.restore()
    made.after(1, {})
    (tmp_path / "stop").touch()
    with pytest.raises(Stopped):
        made.after(2, {})
    with pytest.raises(Stopped):  # it is still there: not even begun
        build(tmp_path / "checkpoints")[0].restore()


def test_a_launcher_that_is_gone_is_a_request(tmp_path, monkeypatch):
    shell = subprocess.Popen(["sleep", "60"])
    monkeypatch.setenv("RLHF_SHELL", f"{platform.node()} {shell.pid}")
    made, _ = build(tmp_path / "checkpoints")
    made.restore()
    made.after(1, {})
    shell.kill()
    shell.wait()
    monkeypatch.setenv("RLHF_SHELL", f"elsewhere {shell.pid}")
    made.after(2, {})
    monkeypatch.setenv("RLHF_SHELL", f"{platform.node()} {shell.pid}")
    with pytest.raises(Stopped):
        made.after(3, {})


def test_after_the_last_step_nothing_is_left_to_stop(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_STOP_FILE", str(tmp_path / "stop"))
    made, _ = build(tmp_path / "checkpoints")
    made.restore()
    (tmp_path / "stop").touch()
    made.after(1, {}, last=True)
    made.wait()
    assert labels(tmp_path / "checkpoints") == [Label(1)]


# A disk that is full.


def test_a_checkpoint_that_will_not_fit_is_not_begun(tmp_path, monkeypatch):
    train(tmp_path, 3, checkpoint_steps=3)
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: full)
    with pytest.raises(UserError) as caught:
        train(tmp_path, 6, checkpoint_steps=3)
    assert "checkpoint of step 6 could not be written" in str(caught.value)
    assert "step 3 is whole" in str(caught.value) and "0.0 MB are free" in str(caught.value)
    monkeypatch.undo()
    assert labels(tmp_path) == [Label(3)]
    assert train(tmp_path, 6, checkpoint_steps=3).count == 6


@pytest.mark.parametrize("where", ["write_state", "write_manifest", "publish"])
def test_a_write_that_fails_leaves_the_one_before_whole(tmp_path, monkeypatch, where):
    train(tmp_path, 3, checkpoint_steps=3)

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    place = module if where == "write_state" else folders
    with monkeypatch.context() as patched:
        patched.setattr(place, where, fail)
        with pytest.raises(UserError, match="No space left on device.*step 3 is whole"):
            train(tmp_path, 6, checkpoint_steps=3)
    assert labels(tmp_path) == [Label(3)]
    assert train(tmp_path, 6, checkpoint_steps=3).count == 6


def test_a_failure_in_the_background_ends_the_run_at_the_next_step(tmp_path, monkeypatch):
    made, _ = build(tmp_path, checkpoint_steps=1)
    made.restore()

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders, "publish", fail)
    made.after(1, {})
    made._publication.join()
    made.settings.checkpoint_steps = 0  # no other checkpoint is due
    with pytest.raises(UserError, match="No space left"):
        made.after(2, {})


@pytest.fixture
def disk(tmp_path):
    """One that holds one checkpoint of `Large`, and not two."""
    with small_disk(tmp_path / "disk", 3 * 1024) as folder:
        yield folder


class Large(Counter):
    """Two megabytes."""

    def state_dict(self) -> dict:
        return super().state_dict() | {"ballast": torch.zeros(2_000_000, dtype=torch.uint8)}


@pytest.mark.parametrize("looked_at", [True, False], ids=["asked before", "while writing"])
def test_a_disk_with_room_for_one(disk, monkeypatch, looked_at):
    def run(until):
        large = Large()
        made = Checkpoints(
            disk / "checkpoints",
            CheckpointArguments(**QUIET, checkpoint_steps=1),
            engines={},
            shared={"large": large},
        )
        for step in range(made.restore() + 1, until + 1):
            large.advance()
            made.after(step, {})
        made.wait()
        return large

    run(1)
    if not looked_at:  # a quota, say, which the free space does not show
        monkeypatch.setattr(Checkpoints, "_check_room", lambda self: None)
    with pytest.raises(UserError) as caught:
        run(2)
    message = str(caught.value)
    assert "step 2 could not be written" in message and "step 1 is whole" in message
    assert folders.damage(disk / "checkpoints" / "step_00000001") is None
    make_room(disk, 9 * 1024)
    assert run(3).count == 3


# Ranks.


def two_ranks(root, steps):
    """States of both ranks after a run in two parts."""
    import torch.distributed as dist

    from common.training.distributed import rank

    def part(until):
        local = Counter()
        shared = KLController(0.1, target=1.0, horizon=10.0)
        made = Checkpoints(
            root,
            CheckpointArguments(**QUIET, checkpoint_steps=2),
            engines={},
            shared={"kl": shared},
            local={"mine": local},
        )
        for step in range(made.restore() + 1, until + 1):
            local.advance()
            shared.update(5.0, 1)
            made.after(step, {})
        made.wait()
        return local, shared

    torch.manual_seed(rank())
    part(steps // 2)
    torch.manual_seed(99)
    local, shared = part(steps)
    dist.barrier()
    files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    return local.weights.tolist(), shared.coefficient, files


def test_each_rank_gets_its_own_states_back(tmp_path):
    found = run_ranks(two_ranks, 2, tmp_path, 8)
    for number, (weights, coefficient, files) in enumerate(found):
        torch.manual_seed(number)
        alone = Counter()
        expected = 0.1
        for _ in range(8):
            alone.advance()
            expected *= 1 + 0.2 / 10  # the error is clipped at 0.2
        assert weights == alone.weights.tolist()
        assert coefficient == pytest.approx(expected, rel=1e-12)
        assert "step_00000008/rank_00001.json" in files and "latest" in files
        assert not any(name.startswith(".") for name in files)


def rank_without_room(root):
    from common.training.distributed import rank

    made = Checkpoints(
        root, CheckpointArguments(**QUIET), engines={}, shared={"counter": Counter()}
    )
    made.restore()
    made.after(1, {})
    if rank() == 1:

        def fail(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        folders.file_fact = fail
    made.step = 1
    began = time.monotonic()
    try:
        made.save()
        made.wait()
    except UserError as error:
        return str(error), time.monotonic() - began
    return "", 0.0


def test_all_ranks_learn_that_one_could_not_write(tmp_path):
    for message, seconds in run_ranks(rank_without_room, 2, tmp_path):
        assert "rank 1 could not write" in message or "No space left" in message
        assert seconds < 10
    assert labels(tmp_path) == []
