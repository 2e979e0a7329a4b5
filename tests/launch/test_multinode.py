"""multinode.sh: with stand-ins, and for real between two network namespaces."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from common.training.resume.folders import labels
from tests.launch.test_recipes import write_rankings
from tests.stages import ROOT, environment
from tests.two_nodes import ADDRESSES, CABLE, end, ip, ssh_between, start, two_nodes, why_not

MULTINODE = ROOT / "launch/multinode.sh"
RECIPE = ROOT / "launch/recipes/any_model.sh"
TEXT = ["--max_prompt_tokens", "40", "--max_response_tokens", "8"]
FILES = {"SFT_DATA": "sft.jsonl", "PROMPTS": "prompts.jsonl", "RANKINGS": "rankings.jsonl"}


def recipe_of(run, processes, *, epochs=1):
    tiny = ["--tiny_layers", "1", "--tiny_width", "32", "--tiny_heads", "2"]
    training = ["--batch_size", "8", "--micro_batch_size", "2"]
    rlhf = ["--steps", "3", "--rollout_batch_size", "8", "--mini_batch_size", "8"]
    return [
        *("bash", RECIPE, "tiny", "--run", run, "--processes", str(processes)),
        *("--only", "sft", "reward", "rlhf"),
        *("sft:", *TEXT, *tiny, "--tiny_vocabulary", "300", "--eval_fraction", "0.2", *training),
        *("--epochs", str(epochs)),
        *("reward:", *TEXT, "--eval_fraction", "0.3", *training),
        *("rlhf:", *TEXT, *rlhf),
    ]


def node(number, hostfile, command, **variables):
    """A node's command in the mode without ssh; `command` begins with bash."""
    mode = ["--no_ssh", "--node_rank", str(number), "--master_addr", ADDRESSES[0]]
    return start(
        number, "bash", MULTINODE, "--hostfile", hostfile, *mode, *command[1:], **variables
    )


def finished(*processes, seconds=500):
    outputs = []
    try:
        for process in processes:
            output, _ = process.communicate(timeout=seconds)
            outputs.append(output)
    finally:
        for process in processes:
            end(process)
    return [process.returncode for process in processes], outputs


def metrics(run, stage):
    """The stage's metrics without those that tell the time."""
    lines = (run / stage / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in rows]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    write_rankings(folder)
    return folder


@pytest.fixture(scope="module")
def hostfile(data):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with two_nodes(data) as file:
        yield file


@pytest.fixture(scope="module")
def one_node(data):
    """What two ranks on one node come to."""
    variables = {name: str(data / file) for name, file in FILES.items()}
    command = [str(word) for word in recipe_of(data / "one", 2)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return data / "one"


@pytest.mark.multinode
@pytest.mark.slow
def test_two_nodes_without_ssh_train_as_two_ranks_on_one(data, hostfile, one_node):
    variables = {name: str(data / file) for name, file in FILES.items()}
    command = recipe_of(data / "two", 1)
    codes, outputs = finished(*(node(i, hostfile, command, **variables) for i in (0, 1)))
    assert codes == [0, 0], "\n====\n".join(text[-4000:] for text in outputs)
    for stage in ("sft", "reward", "rlhf"):
        found = metrics(data / "two", stage)
        assert found and found == metrics(one_node, stage)
        assert json.loads((data / "two" / stage / "begun.json").read_text())["zero"] == "3"


@pytest.mark.multinode
@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(shutil.which, ("pdsh", "ssh", "sshd"))),
    reason="needs Debian's pdsh, openssh-server and openssh-client",
)
def test_two_nodes_by_pdsh_train_as_two_ranks_on_one(data, hostfile, one_node):
    variables = {name: str(data / file) for name, file in FILES.items()}
    command = recipe_of(data / "pdsh", 1)
    with ssh_between(data) as (port, tools):
        options = ["--hostfile", hostfile, "--ssh_port", port, *command[1:]]
        path = f"{tools}:{os.environ['PATH']}"
        process = start(0, "bash", MULTINODE, *options, **variables, PATH=path)
        codes, outputs = finished(process)
    assert codes == [0], outputs[0][-4000:]
    for stage in ("sft", "reward", "rlhf"):
        found = metrics(data / "pdsh", stage)
        assert found and found == metrics(one_node, stage)


@pytest.mark.multinode
@pytest.mark.slow
def test_a_signal_to_either_node_stops_both_and_the_same_commands_go_on(data, hostfile):
    variables = {name: str(data / file) for name, file in FILES.items()}
    command = recipe_of(data / "stopped", 1, epochs=40)
    both = [node(i, hostfile, command, **variables) for i in (0, 1)]
    deadline = time.monotonic() + 120
    file = data / "stopped/sft/metrics.jsonl"
    while not (file.is_file() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    both[1].send_signal(signal.SIGTERM)  # to the launcher: `ip netns exec` has become it
    codes, outputs = finished(*both)
    assert codes == [75, 75], "\n====\n".join(text[-4000:] for text in outputs)
    steps = len(file.read_text().splitlines())
    again = [node(i, hostfile, command, **variables) for i in (0, 1)]
    codes, outputs = finished(*again)
    assert codes == [0, 0], "\n====\n".join(text[-4000:] for text in outputs)
    assert "going on after step" in outputs[0]
    assert len(file.read_text().splitlines()) > steps


@pytest.mark.multinode
@pytest.mark.slow
def test_both_sides_of_a_cut_cable_name_the_other_and_the_same_commands_go_on(
    data, hostfile, one_node
):
    variables = {name: str(data / file) for name, file in FILES.items()}
    command = [*recipe_of(data / "cut", 1), "--checkpoint_steps", "1"]
    both = [node(i, hostfile, command, **variables, RLHF_SILENCE="8") for i in (0, 1)]
    deadline = time.monotonic() + 400
    file = data / "cut/rlhf/metrics.jsonl"
    while not labels(data / "cut/rlhf/checkpoints") and time.monotonic() < deadline:
        time.sleep(0.02)
    ip("link", "set", CABLE, "down", node=1)
    began = time.monotonic()
    try:
        codes, outputs = finished(*both, seconds=100)
    finally:
        ip("link", "set", CABLE, "up", node=1)
    assert codes == [75, 75], "\n====\n".join(text[-4000:] for text in outputs)
    assert time.monotonic() - began < 8 + 20
    for output, other in zip(outputs, reversed(ADDRESSES), strict=True):
        assert f"rlhf: error: no sign of life from {other} for 8 s, at " in output, output[-4000:]
    assert len(file.read_text().splitlines()) < 3
    codes, outputs = finished(*(node(i, hostfile, command, **variables) for i in (0, 1)))
    assert codes == [0, 0], "\n====\n".join(text[-4000:] for text in outputs)
    assert "rlhf: going on after step" in outputs[0]
    for stage in ("sft", "reward", "rlhf"):
        assert metrics(data / "cut", stage) == metrics(one_node, stage)


@pytest.mark.multinode
@pytest.mark.slow
def test_the_preflight_names_the_node_that_differs(data, hostfile, tmp_path):
    """`ip netns exec` gives a node mounts of its own: one file is another one there."""
    odd = ROOT / "common/training/seeding.py"
    (tmp_path / "other.py").write_text(odd.read_text() + "# changed\n")
    (tmp_path / "data.jsonl").write_text("{}\n")
    (tmp_path / "other.jsonl").write_text('{"prompt": ""}\n')
    package = tmp_path / "packages/peft-0.0.1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.0.1\n")
    variables = {"SFT_DATA": str(tmp_path / "data.jsonl"), "PROMPTS": "", "RANKINGS": "hub/name"}
    command = recipe_of(data / "odd", 1)
    mode = ["--hostfile", hostfile, "--no_ssh", "--master_addr", ADDRESSES[0], "--node_rank"]
    mounts = 'mount --bind "$1" "$2" && mount --bind "$3" "$4" && shift 4 && exec bash "$@"'
    files = [tmp_path / "other.py", odd, tmp_path / "other.jsonl", tmp_path / "data.jsonl"]
    both = [
        node(0, hostfile, command, **variables),
        start(
            *(1, "sh", "-c", mounts, "sh", *files, MULTINODE, *mode, 1, *command[1:]),
            **{**variables, "PYTHONPATH": str(tmp_path / "packages")},
        ),
    ]
    codes, outputs = finished(*both, seconds=120)
    assert codes == [2, 2], "\n====\n".join(outputs)
    for output in outputs:
        wrong = [line for line in output.splitlines() if line.startswith("preflight: error: ")]
        assert len(wrong) == 3
        assert all(line.startswith(f"preflight: error: {ADDRESSES[1]}: ") for line in wrong)
        for words in ("common/training/seeding.py", "peft is 0.0.1", str(tmp_path / "data.jsonl")):
            assert any(words in line for line in wrong)
    assert not (data / "odd").exists()  # no stage was begun


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hostfile", "nowhere"], "no such file: nowhere"),
        (["--hostfile", "{hosts}"], "which launcher?"),
        (["--hostfile", "{one}", "{launcher}"], "of 2 nodes or more"),
        (["--hostfile", "{hosts}", "--no_ssh", "{launcher}", "--run", "{run}"], "must be 0 to 1"),
        (["--hostfile", "{hosts}", "--no_ssh", "{launcher}"], "give --shared"),
        (["--hostfile", "{hosts}", "{launcher}", "--run", "{run}"], "RLHF_FILE_SILENCE is '2.5'"),
        (["--bogus", "1"], "unknown option --bogus"),
    ],
)
def test_what_multinode_refuses(tmp_path, options, message):
    (tmp_path / "hosts").write_text("# ours\n  # c slots=1\na slots=2\n\n  b  slots=2\n")
    (tmp_path / "one").write_text("a slots=2\n")
    (tmp_path / "launcher").write_text("exit 9")
    names = {name: str(tmp_path / name) for name in ("hosts", "one", "launcher", "run")}
    command = ["bash", str(MULTINODE), *(o.format(**names) for o in options)]
    variables = {"RLHF_FILE_SILENCE": "2.5"} if "SILENCE" in message else {}
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr


def stand_in(folder):
    """A checkout whose `deepspeed` notes how it was called, then waits to be asked to stop."""
    tools = folder / ".venv/bin"
    tools.mkdir(parents=True)
    (folder / "launch").mkdir()
    for name in ("env.sh", "multinode.sh"):
        shutil.copy(ROOT / "launch" / name, folder / "launch")
    (folder / "launch/setup.sh").write_text("")
    (tools / "deepspeed").write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, sys, time\n"
        f"me = pathlib.Path({str(folder)!r}, 'called.' + os.environ['RLHF_NODE_RANK'])\n"
        "me.write_text(' '.join(sys.argv[1:]))\n"
        "stop, status = (pathlib.Path(os.environ[f'RLHF_{n}_FILE']) for n in ('STOP', 'STATUS'))\n"
        "while not stop.exists(): time.sleep(0.05)\n"
        "if os.environ['RLHF_NODE_RANK'] == '0': status.write_text('75')\n"
    )
    (tools / "deepspeed").chmod(0o755)


@pytest.mark.parametrize("asked", [0, 1])
def test_nodes_follow_the_first_and_stop_together(tmp_path, asked):
    stand_in(tmp_path)
    (tmp_path / "hosts").write_text("a slots=1\nb slots=1\n")
    (tmp_path / "launcher.sh").write_text(
        "set -e; source launch/env.sh\n"
        'launch_plain touch "$2/plain.$RLHF_NODE_RANK"\n'
        "launch_stage 1 train.py --words 'with blanks'\n"
    )
    # What an earlier run left must not be taken for a sign of life, or for an order.
    shared = tmp_path / "run.nodes/rlhf_nodes"
    shared.mkdir(parents=True)
    (shared / "hello.1").write_text("old")
    (shared / "session").write_text(f"{shared}/session-1-2 old")
    (tmp_path / "run").mkdir()
    both = [
        subprocess.Popen(
            [
                "bash",
                "launch/multinode.sh",
                "--hostfile",
                "hosts",
                "--no_ssh",
                "--skip_preflight",
                "--node_rank",
                str(i),
            ]
            + ["launcher.sh", "--run", str(tmp_path / "run")],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for i in (0, 1)
    ]
    calls = [tmp_path / f"called.{i}" for i in (0, 1)]
    deadline = time.monotonic() + 20
    while not all(c.is_file() and c.read_text() for c in calls) and time.monotonic() < deadline:
        time.sleep(0.05)
    both[asked].send_signal(signal.SIGUSR1)
    codes, outputs = finished(*both, seconds=30)
    assert codes == [75, 75], outputs
    for i, call in enumerate(calls):
        assert f"--no_ssh --node_rank {i} --master_addr a" in call.read_text()
        assert call.read_text().endswith("train.py --words with blanks")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["plain.0"]


def test_a_preflight_that_fails_ends_all_nodes_before_the_launcher_begins(tmp_path):
    stand_in(tmp_path)
    (tmp_path / ".venv/bin/deepspeed").write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, sys, time\n"
        "node = os.environ['RLHF_NODE_RANK']\n"
        f"called = [pathlib.Path({str(tmp_path)!r}, f'called.{{i}}') for i in (0, 1)]\n"
        "called[int(node)].write_text('|'.join(sys.argv[1:]))\n"
        "while not all(file.exists() for file in called): time.sleep(0.05)\n"
        "if node == '0': pathlib.Path(os.environ['RLHF_STATUS_FILE']).write_text('2')\n"
        "sys.exit(2)\n"
    )
    (tmp_path / "hosts").write_text("a slots=1\nb slots=1\n")
    (tmp_path / "launcher.sh").write_text(f"touch {tmp_path}/launched\n")
    mode = ["--hostfile", "hosts", "--no_ssh", "--node_rank"]
    words = ["launcher.sh", "--run", "run", "rlhf:", "--data", "x", "y z", "--steps", "3"]
    words += ["--eval_data=e", "f", "--ptx_data", "p", "pairs:", "--rankings", '{"path": "r"}']
    clean = {k: v for k, v in os.environ.items() if k not in (*FILES, "EVAL_DATA")}
    both = [
        subprocess.Popen(
            ["bash", "launch/multinode.sh", *mode, str(i), *words],
            cwd=tmp_path,
            env={**clean, "SFT_DATA": "one two", "RLHF_PREFLIGHT": "--clock_skew 1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for i in (0, 1)
    ]
    codes, outputs = finished(*both, seconds=30)
    assert codes == [2, 2], outputs
    assert not (tmp_path / "launched").exists()
    options = '|--clock_skew|1|--data|one|two|x|y z|e|p|{"path": "r"}'
    for i in (0, 1):
        call = (tmp_path / f"called.{i}").read_text()
        assert "|--module|common.training.preflight|--folder|" in call and call.endswith(options)


@pytest.mark.slow
def test_a_node_does_not_wait_for_ever_for_a_first_node_that_was_killed(tmp_path):
    stand_in(tmp_path)
    (tmp_path / "hosts").write_text("first slots=1\nb slots=1\n")
    (tmp_path / "launcher.sh").write_text("sleep 60\n")  # between two stages
    mode = ["--hostfile", "hosts", "--no_ssh", "--skip_preflight", "--node_rank"]
    both = [
        subprocess.Popen(
            ["bash", "launch/multinode.sh", *mode, str(i), "launcher.sh", "--run", "run"],
            cwd=tmp_path,
            env={**os.environ, "RLHF_FILE_SILENCE": "10", "RLHF_SILENCE": "2.5"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for i in (0, 1)
    ]
    shared = tmp_path / "run.nodes/rlhf_nodes"
    deadline = time.monotonic() + 20
    while not list(shared.glob("session-*/alive")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(12)
    assert both[1].poll() is None  # it hears of the first
    end(both[0])
    codes, outputs = finished(both[1], seconds=30)
    assert codes == [75] and "no sign of life from first for 10 s" in outputs[0]


@pytest.mark.parametrize("code", [0, 5])
def test_the_others_hear_of_the_first_only_when_it_is_set_up(tmp_path, code):
    """A first installation takes minutes; from the session on, there are signs of life."""
    stand_in(tmp_path)
    shared = tmp_path / "run.nodes/rlhf_nodes"
    (tmp_path / "launch/setup.sh").write_text(
        f"sleep 2; if [[ -e {shared}/session ]]; then touch {tmp_path}/early; fi; exit {code}\n"
    )
    (tmp_path / ".venv/bin/deepspeed").write_text(  # the preflight: the beat is there in it
        f"#!/bin/bash\nfor i in {{1..50}}; do sleep 0.1\n"
        f"  if compgen -G '{shared}/session-*/alive'; then break; fi\ndone\n"
        f"if compgen -G '{shared}/session-*/alive'; then touch {tmp_path}/beating; fi\n"
        'if [[ "$RLHF_NODE_RANK" == 0 ]]; then echo 3 >"$RLHF_STATUS_FILE"; fi; exit 3\n'
    )
    (tmp_path / "hosts").write_text("a slots=1\nb slots=1\n")
    (tmp_path / "launcher.sh").write_text(f"touch {tmp_path}/launched\n")
    mode = ["--hostfile", "hosts", "--no_ssh", "--node_rank"]
    both = [
        subprocess.Popen(
            ["bash", "launch/multinode.sh", *mode, str(i), "launcher.sh", "--run", "run"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for i in (0, 1)
    ]
    codes, outputs = finished(*both, seconds=30)
    assert codes == ([3, 3] if code == 0 else [5, 5]), outputs
    assert not (tmp_path / "early").exists() and not (tmp_path / "launched").exists()
    assert (tmp_path / "beating").exists() == (code == 0)
    assert ("setup.sh failed" in outputs[0]) == (code != 0)
