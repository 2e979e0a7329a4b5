"""Stage 3 with rewards from elsewhere, averaged weights and PPO-ptx, end to end."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from common.config.arguments import ModelArguments
from common.models.loading import load_tokenizer, save_model
from common.models.scalar import load_scalar_model
from tests.models import save_tiny
from tests.stages import finish, kill_after, launch, read, start, write_data

pytestmark = pytest.mark.slow

RULE = """
def short(prompts, responses):
    assert all(p.startswith("Is the ") for p in prompts)
    return [-len(r) for r in responses]
"""


class LastLetters(BaseHTTPRequestHandler):
    """Scores a response by its last character."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        scores = [ord(r[-1]) % 7 if r else 0 for r in body["responses"]]
        data = json.dumps({"scores": scores}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), LastLetters)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/score"
    server.shutdown()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Data, an SFT model, a reward model and a rule."""
    root = tmp_path_factory.mktemp("rewards")
    write_data(root)
    save_tiny(root / "sft")
    tokenizer = load_tokenizer(str(root / "sft"))
    reward = load_scalar_model(
        str(root / "sft"), "reward", ModelArguments(), new_head=True, tokenizer=tokenizer
    )
    save_model(reward, tokenizer, root / "reward", "")
    (root / "rules.py").write_text(RULE)
    return root


def options(root, run, url, zero):
    endpoint = json.dumps({"path": url, "weight": -0.5, "mean": 3, "std": 2, "name": "letters"})
    given = {
        "config": [root / "all.yaml"],
        "run": [run],
        "actor": [root / "sft"],
        "reward": [root / "reward", f"python:{root}/rules.py:short", endpoint],
        "ptx_data": [root / "sft.jsonl"],
        "ptx_coefficient": [0.3],
        "ptx_batch_size": [6],
        "ema_decay": [0.9],
        "steps": [8],
        "checkpoint_steps": [1],
        "template": ["ice"],
        "max_prompt_tokens": [200],
        "zero": [zero],
    }
    return [str(x) for name, values in given.items() for x in (f"--{name}", *values)]


def numbers(run):
    rows = read(run, "rlhf")[1]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def test_a_killed_run_ends_as_one_left_alone(root, tmp_path, url):
    alone, killed = (
        ("step3_rlhf/main.py", *options(root, tmp_path / name, url, 2))
        for name in ("alone", "killed")
    )
    finish(start(*alone))
    kill_after(start(*killed), tmp_path / "killed", "rlhf", 3)
    assert "going on after step" in finish(start(*killed))
    rows, again = (numbers(tmp_path / name) for name in ("alone", "killed"))
    assert len(rows) == 8 and json.dumps(rows) == json.dumps(again)
    for row in rows:
        assert row["reward/raw_score/short"] < 0 <= row["reward/raw_score/letters"] < 7
        assert "reward/raw_score/reward" in row
    assert "policy/ptx_loss" not in rows[0]  # the critic's warm-up
    assert rows[-1]["policy/ptx_loss"] < rows[1]["policy/ptx_loss"]
    assert {"eval/score", "eval/raw_score/short"} <= rows[-1].keys()
    actors = {}
    for model in ("actor", "actor_ema"):
        one, other = (
            load_file(tmp_path / name / "models" / model / "model.safetensors")
            for name in ("alone", "killed")
        )
        assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
        actors[model] = one
    assert any(not torch.equal(x, actors["actor_ema"][n]) for n, x in actors["actor"].items())
    # The same command does nothing; with another rule it refuses.
    assert "finished already" in finish(start(*alone))
    rules = root / "rules.py"
    rules.write_text(RULE + "# changed\n")
    try:
        process = start(*alone)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 2 and "rules.py changed" in output
    finally:
        rules.write_text(RULE)


def test_a_run_without_a_reward_model_is_evaluated(root, tmp_path):
    rule = f"python:{root}/rules.py:short"
    given = ("--config", str(root / "all.yaml"), "--run", str(tmp_path), "--template", "ice")
    given += ("--max_prompt_tokens", "200")
    actor = ("--actor", str(root / "sft"), "--reward", rule, "--zero", "0")
    finish(start("step3_rlhf/main.py", *given, *actor))
    rows = numbers(tmp_path)
    assert len(rows) == 3 and all(row["reward/raw_score"] <= 0 for row in rows)
    module = ("-m", "common.evaluation.main")
    printed = finish(start(*module, *given, "--sft", str(root / "sft")))
    assert "responses are not scored by a reward model" in printed
    result = read(tmp_path, "evaluation")[0]
    assert result["rlhf_reward"] is None


def test_two_ranks_under_zero_3(root, tmp_path, url):
    finish(launch(2, "step3_rlhf/main.py", *options(root, tmp_path, url, 3)))
    rows = numbers(tmp_path)
    assert len(rows) == 8 and rows[-1]["policy/ptx_loss"] < rows[1]["policy/ptx_loss"]
    assert -60 < rows[0]["reward/raw_score/short"] < 0
    actor, average = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "models" / name).state_dict()
        for name in ("actor", "actor_ema")
    )
    gaps = [float((actor[n] - average[n]).abs().max()) for n in actor]
    assert 0 < max(gaps) < 0.2
