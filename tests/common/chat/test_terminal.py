"""The chat through a pipe, and on a pseudo-terminal."""

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from common.chat import speaker
from common.chat.terminal import Terminal
from common.errors import UserError
from common.evaluation.formatting import visible
from tests.common.chat.models import save_endless, save_run, session
from tests.models import byte_tokenizer

ROOT = Path(__file__).parents[3]
PATIENCE = 60.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"))


def piped(talk, *lines):
    """(all was fine, output, what else was told) of lines that come through a pipe."""
    target, aside = io.StringIO(), io.StringIO()
    fine = Terminal(talk, io.StringIO("".join(f"{x}\n" for x in lines)), target, aside).run()
    return fine, target.getvalue(), aside.getvalue()


def test_one_model_through_a_pipe_gives_the_answer_alone(run):
    talk = session([f"{run}/models/sft"])
    fine, out, aside = piped(talk, "Hi")
    (turn,) = talk.conversation.turns
    assert fine and out.strip() == visible(turn.answers[0]).strip()
    assert re.fullmatch(r"\(\d+ tokens.*\)\n", aside)


def test_two_models_below_each_other_with_scores(run):
    talk = session([run])
    _, out, aside = piped(talk, "Hi")
    (turn,) = talk.conversation.turns
    first, second = (visible(answer).strip() for answer in turn.answers)
    parts = re.fullmatch(r"\[sft\]\n(.*)\n\[actor\]\n(.*)\n", out, re.DOTALL)
    assert [part.strip() for part in parts.groups()] == [first, second]
    for name, score in zip(("sft", "actor"), turn.scores, strict=True):
        assert f"({name}: reward {score:+.2f} deviations, " in aside


def test_commands(run, tmp_path):
    talk = session([run])
    file = tmp_path / "talk.jsonl"
    fine, _, aside = piped(
        talk,
        "one",
        "two",
        f"/save {file}",
        "/undo",
        "/reset",
        f"/load {file}",
        "/set top-k 5",
        "//x",
    )
    assert fine
    assert [t.question for t in talk.conversation.turns] == ["one", "two", "/x"]
    assert talk.sampling.top_k == 5 and talk.sampling.max_response_tokens == 12
    assert len(file.read_text().splitlines()) == 2
    for told in ("2 turns saved", "(taken back: two)", "forgotten", "2 turns loaded", "top_k 5"):
        assert told in aside
    before = talk.conversation.turns[-1].answers
    piped(talk, "/retry")
    assert [t.question for t in talk.conversation.turns] == ["one", "two", "/x"]
    assert talk.conversation.turns[-1].answers != before


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/sett", "did you mean '/set'?"),
        ("/undo", "nothing has been said yet"),
        ("/save", "needs the name of a file"),
        ("/load none.jsonl", "there is no such file"),
        ("/set heat 1", "there is no setting 'heat'"),
        ("/set top_k many", "must be a whole number, not 'many'"),
        ("/set temperature nan", "must be a number"),
        ("/set temperature -1", "must be at least 0"),
        ("/set top_p 2", r"must lie in \(0, 1\]"),
        ("/set seed", "a name and a value"),
        ("x" * 400, "write a shorter one"),
    ],
)
def test_what_cannot_be_done_is_told_and_the_chat_goes_on(run, line, complaint):
    talk = session([f"{run}/models/sft"])
    fine, out, aside = piped(talk, line, "/set seed 3", "")
    assert not fine and out == "" and talk.sampling.seed == 3
    assert re.search(complaint, aside)


def test_what_a_model_says_cannot_steer_the_terminal(run, monkeypatch):
    talk = session([f"{run}/models/sft"])
    said = byte_tokenizer()("\x1b[2Jred\u202e").input_ids
    monkeypatch.setattr(speaker, "stream_response", lambda *_, **__: (i for i in [*said, 2]))
    _, out, _ = piped(talk, "Hi")
    assert "\x1b" not in out and out == "\\u001b[2Jred\\u202e\n"


def take_terminal():
    """In the new process. What a shell starts in the background is born deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Typist:
    """`bash launch/chat.sh` on a pseudo-terminal."""

    def __init__(self, *words, columns=100, term="dumb"):
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {**os.environ, "TERM": term, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.main = main
        self.process = subprocess.Popen(
            [sys.executable, "-m", "common.chat.main", "--models", *words],
            stdin=side,
            stdout=side,
            stderr=side,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(side)
        self.seen = ""

    def wait_for(self, pattern):
        """What came up to where the pattern ends."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, self.seen[-2000:]
            if not select.select([self.main], [], [], 1.0)[0]:
                continue
            try:
                self.seen += os.read(self.main, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"ended: {self.seen[-2000:]}") from None
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def type(self, text):
        os.write(self.main, text.encode())

    def end(self):
        self.type("\x04")
        return self.process.wait(PATIENCE)


def test_on_a_terminal(tmp_path):
    """Columns, Ctrl-C in an answer and at the prompt, and Ctrl-D."""
    folders = [save_endless(tmp_path / name, seed) for seed, name in enumerate(("left", "right"))]
    settings = ["--temperature", "0", "--max_response_tokens", "30000"]
    typist = Typist(*folders, *settings)
    try:
        assert "left, right; /help tells" in typist.wait_for("> ")
        typist.type("Hello\n")
        head = typist.wait_for(r"left +\| right\r\n-+ \| -+\r\n")
        assert "Hello" in head
        for _ in range(3):  # lines come while both go on
            assert len(typist.wait_for(r"[^\n]* \| [^\n]*\r\n")) <= 101
        typist.type("\x03")
        told = typist.wait_for(r"\(left: \d+ tokens, stopped\)\r\n\(right: \d+ tokens, stopped\)")
        assert "Traceback" not in told
        typist.wait_for("> ")
        typist.type("half a line")
        typist.wait_for("half a line")
        time.sleep(0.5)  # readline misses a signal that comes while it works on characters
        typist.type("\x03")
        typist.wait_for(r"\(Ctrl-D ends the chat\)")
        typist.wait_for("> ")
        file = tmp_path / "talk.jsonl"
        typist.type(f"/save {file}\n")
        typist.wait_for(r"\(1 turn saved")
        typist.wait_for("> ")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [r["messages"][0]["content"] for r in rows] == ["Hello", "Hello"]
        assert all(r["messages"][1]["content"] for r in rows)
        assert typist.end() == 0
    finally:
        if typist.process.poll() is None:
            typist.process.send_signal(signal.SIGKILL)
            typist.process.wait()
        os.close(typist.main)


@pytest.mark.slow
def test_the_launcher_through_a_pipe(run):
    words = ["bash", "launch/chat.sh", run, "--max_response_tokens", "5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        words, input="Hi\n", capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("[sft]\n") and "[actor]\n" in told.stdout
    assert "reward" in told.stderr and "Traceback" not in told.stderr
    missing = subprocess.run(
        [*words[:2], "no/such/model"], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert missing.returncode == 2 and "no such model folder" in missing.stderr


def test_a_retry_that_fails_keeps_what_was_there(run, monkeypatch):
    talk = session([f"{run}/models/sft"])
    piped(talk, "one", "two")
    before = list(talk.conversation.turns)

    def fails(question):
        raise UserError("no answer")

    monkeypatch.setattr(talk, "ask", fails)
    fine, _, aside = piped(talk, "/retry")
    assert not fine and "no answer" in aside
    assert talk.conversation.turns == before
