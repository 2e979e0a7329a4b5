"""Every stage's `main`, end to end, as a launcher starts it: two ranks, ZeRO-3, a micro data set.

The models are far too small and train far too little to be any good. What counts here is that
the chain runs, and what it leaves on disk.
"""

import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

from common.data.records import Message
from common.data.template import Template
from tests.stages import (
    COLOURS,
    ROOT,
    environment,
    finish,
    launch,
    rank_samples,
    read,
    start,
    write_data,
)

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(),
    reason="two ranks in fp32 on the CPU; with a GPU the launcher takes it",
)
SEED = 3

LOGGED_BY_PPO = {
    "reward/score",
    "reward/raw_score",
    "kl/token_k1",
    "kl/token_k2",
    "kl/token_k3",
    "kl/sequence_k1",
    "kl/sequence_k2",
    "kl/sequence_k3",
    "kl/coefficient",
    "policy/entropy",
    "policy/loss",
    "policy/clip_fraction",
    "policy/approx_kl",
    "policy/grad_norm",
    "policy/learning_rate",
    "value/loss",
    "value/clip_fraction",
    "value/explained_variance",
    "value/grad_norm",
    "value/learning_rate",
    "response/length",
    "response/eos_rate",
    "time/generate",
    "time/score",
    "time/train",
    "time/step",
    "time/tokens_per_second",
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Folder of a run of all stages on two ranks, and what each printed."""
    root = tmp_path_factory.mktemp("stages")
    run = root / "run"
    write_data(root)
    options = ("--config", str(root / "all.yaml"), "--run", str(run), "--seed", str(SEED))
    printed = {
        "sft": finish(launch(2, "step1_sft/main.py", *options)),
        "sample": finish(launch(2, "step2_reward/sample.py", *options)),
    }
    rank_samples(run)
    printed |= {
        "pairs": finish(start("step2_reward/pairs.py", *options)),
        "reward": finish(launch(2, "step2_reward/main.py", *options)),
        "rlhf": finish(launch(2, "step3_rlhf/main.py", *options)),
        "dpo": finish(launch(2, "step3_rlhf/dpo.py", *options)),
        "evaluation": finish(
            launch(2, "-m common.evaluation.main", *options, "--further", f"{run}/models/dpo")
        ),
    }
    return run, printed


@pytest.fixture(scope="module")
def variants(pipeline):
    """Runs of single stages on one rank, beside the pipeline's: name -> folder."""
    run, root = pipeline[0], pipeline[0].parent
    lora = ("--lora_rank", "4", "--lora_alpha", "8")
    offload = ("--offload_optimizer", "cpu", "--offload_parameters", "cpu")  # so ZeRO-3
    wanted = {
        "sft zero 2": ("step1_sft/main.py", "--zero", "2"),
        "sft zero 2 again": ("step1_sft/main.py", "--zero", "2"),
        "sft offload lora": ("step1_sft/main.py", *offload, *lora),
        "reward offload lora": ("step2_reward/main.py", *offload, *lora),
        "rlhf lora": ("step3_rlhf/main.py", "--zero", "2", *lora, "--critic_from", "reward"),
        "rlhf lora again": ("step3_rlhf/main.py", "--zero", "2", *lora, "--critic_from", "reward"),
        "rlhf lora two ranks": ("step3_rlhf/main.py", *lora, "--wandb", "true"),
    }
    folders, running = {}, []
    for name, (script, *arguments) in wanted.items():
        folder = folders[name] = root / name.replace(" ", "_")
        if not name.startswith("sft"):  # these start from models and pairs of the pipeline
            folder.mkdir()
            shutil.copytree(run / "models", folder / "models")
            shutil.copytree(run / "pairs", folder / "pairs")
        options = ("--config", str(root / "all.yaml"), "--run", str(folder), "--seed", str(SEED))
        if name.endswith("two ranks"):
            finish(launch(2, script, *options, *arguments))
            continue
        running.append(start(script, *options, *arguments))
        if len(running) == 2:  # two cores
            finish(running.pop(0))
            finish(running.pop(0))
    assert not running
    return folders


def numbers_of(rows):
    """All values but the times, and that every value is a number."""
    for row in rows:
        assert all(isinstance(v, int | float) and math.isfinite(v) for v in row.values()), row
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


# What the pipeline leaves.


def test_every_stage_says_what_it_achieved_and_marks_itself_as_done(pipeline):
    run, printed = pipeline
    for stage, text in printed.items():
        result, _ = read(run, stage)
        assert result["seed"] == SEED and result["seconds"] >= 0
        assert {"python", "torch", "deepspeed", "transformers"} <= result["versions"].keys()
        assert f"{stage}: " in text and "Traceback" not in text
        settings = yaml.safe_load((run / stage / "config.yaml").read_text())
        assert settings["seed"] == SEED and settings["run"] == str(run)
    assert yaml.safe_load((run / "rlhf/config.yaml").read_text())["steps"] == 3


def test_sft(pipeline):
    result, rows = read(pipeline[0], "sft")
    # A fifth of 40 prompts is held out, in expectation; three epochs, eight examples a step.
    assert 25 <= result["examples"] < 40
    steps = 3 * math.ceil(result["examples"] / 8)
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    numbers_of(rows)
    for row in rows:
        assert {"train/loss", "train/learning_rate", "train/grad_norm"} <= row.keys()
    assert [row["step"] for row in rows if "eval/perplexity" in row] == [round(steps / 2), steps]
    assert rows[-1]["eval/perplexity"] == result["eval_perplexity"]
    assert rows[-1]["eval/perplexity"] == pytest.approx(math.exp(rows[-1]["eval/loss"]))
    assert rows[-1]["train/loss"] < 0.7 * rows[0]["train/loss"]


def test_samples(pipeline):
    run, _ = pipeline
    result, _ = read(run, "sample")
    rows = [json.loads(line) for line in (run / "sample/samples.jsonl").read_text().splitlines()]
    assert result["prompts"] == len(rows) == 12
    assert [row["prompt"] for row in rows[:2]] == ["Is the sky red?", "Is the sky blue?"]
    assert result["responses"] == sum(len(row["responses"]) for row in rows)
    for row in rows:
        assert len(set(row["responses"])) == len(row["responses"]) <= 4
        assert all(row["responses"]) and len(row["ended"]) == len(row["responses"])
    assert result["prompts_with_fewer"] == sum(len(row["responses"]) < 4 for row in rows)


def test_pairs_and_reward(pipeline):
    run, _ = pipeline
    pairs, _ = read(run, "pairs")
    lines = (run / "pairs/pairs.jsonl").read_text().splitlines()
    assert pairs["pairs"] == len(lines) > 12
    result, rows = read(run, "reward")
    assert result["pairs"] + result["held_out_pairs"] == pairs["pairs"]
    assert {
        "accuracy",
        "accuracy_by_gap",
        "right_minus_wrong",
        "length_score_correlation",
        "scores",
        "scores_preferred",
        "scores_other",
    } <= result.keys()
    assert 0 <= result["accuracy"] <= 1 and math.isfinite(result["right_minus_wrong"])
    assert sum(v["pairs"] for v in result["accuracy_by_gap"].values()) == result["held_out_pairs"]
    numbers_of(rows)
    for row in rows:
        assert {"train/loss", "train/accuracy", "train/grad_norm"} <= row.keys()
    assert {"eval/loss", "eval/accuracy"} <= rows[-1].keys()
    # Early stop: the weights of the best evaluation are kept. Held-out pairs weigh alike here.
    evaluations = [(r["eval/accuracy"], -r["eval/loss"]) for r in rows if "eval/loss" in r]
    assert len(evaluations) == 2 and result["accuracy"] == pytest.approx(max(evaluations)[0])
    found = result["diagnostics"]
    assert found["accuracy"]["value"] == pytest.approx(result["accuracy"], abs=1e-4)
    # These labelers like short responses, and nothing else.
    assert found["length_only"]["prefers"] == "shorter" and result["length_only_accuracy"] == 1.0
    page = (run / "reward/diagnostics.html").read_text()
    assert "Preferring the shorter response, and nothing else, gets 100.0%" in page
    config = json.loads((run / "models/reward/config.json").read_text())
    assert config["score_mean"] == result["scores"]["mean"]
    assert config["score_std"] == result["scores"]["std"] > 0


def test_rlhf_logs_every_quantity_at_every_step(pipeline):
    result, rows = read(pipeline[0], "rlhf")
    numbers_of(rows)
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert LOGGED_BY_PPO <= row.keys()
        assert 1 <= row["response/length"] <= 10 and 0 <= row["response/eos_rate"] <= 1
        assert row["policy/entropy"] > 0
        assert row["value/grad_norm"] > 0 and row["value/loss"] > 0
        assert row["time/step"] >= row["time/generate"] + row["time/score"] + row["time/train"]
        assert row["kl/token_k1"] * row["response/length"] == pytest.approx(
            row["kl/sequence_k1"], abs=1e-9
        )
    held_out = {"eval/score", "eval/response_length", "eval/eos_rate"}
    assert [held_out <= row.keys() for row in rows] == [False, True, True]
    for name in ("kl_per_sequence", "eos_rate", "score", "response_length"):
        assert math.isfinite(result[name])
    assert result["kl_per_sequence"] == rows[-1]["kl/sequence_k1"]


def test_the_actor_waits_for_the_critic_and_then_leaves_the_reference(pipeline):
    _, rows = read(pipeline[0], "rlhf")
    warmup, second, third = rows
    assert warmup["policy/grad_norm"] == warmup["policy/learning_rate"] == 0
    assert second["policy/grad_norm"] > 0
    for row in (warmup, second):  # both rollouts are the reference's own
        assert abs(row["kl/sequence_k1"]) < 1e-3
    assert third["kl/sequence_k3"] > 1e-4
    # β by hand: at KL 0 the error is −1, clipped to −0.2, over 8 of 100 sequences
    assert second["kl/coefficient"] == pytest.approx(0.05 * (1 - 0.2 * 8 / 100))


def test_dpo_starts_at_ln_2_and_learns_the_pairs_of_the_reward_model(pipeline):
    result, rows = read(pipeline[0], "dpo")
    numbers_of(rows)
    reward, _ = read(pipeline[0], "reward")
    for name in ("pairs", "held_out_pairs"):
        assert result[name] == reward[name] > 0
    assert rows[0]["train/loss"] == pytest.approx(math.log(2.0), abs=1e-5)
    for name in ("margin", "chosen_reward", "rejected_reward", "drift"):
        assert rows[0][f"train/{name}"] == pytest.approx(0.0, abs=1e-3)
        assert rows[-1][f"eval/{name}"] == result[name] != 0.0
    assert rows[-1]["train/loss"] < rows[0]["train/loss"] - 1e-3
    assert rows[-1]["train/margin"] > 0 and rows[-1]["train/accuracy"] > 0.5
    assert rows[-1]["eval/loss"] == result["loss"] and 0 <= result["accuracy"] <= 1


def test_evaluation_answers_every_held_out_prompt_with_all_models(pipeline):
    run, _ = pipeline
    result, _ = read(run, "evaluation")
    assert result["prompts"] == {"held_out": 5} and result["samples"] == 2
    lines = (run / "evaluation/responses.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    # three models, five prompts, two samples and a greedy answer; and the best of two
    assert len(rows) == 50
    keys = {(r["model"], r["index"], r["decoding"], r["sample"]) for r in rows}
    assert len(keys) == 50
    assert {r["prompt"] for r in rows} == {f"Is the sea {c}?" for c in COLOURS[:5]}
    assert all(math.isfinite(r["reward"]) for r in rows)


def test_stock_classes_load_all_models_and_give_the_evaluations_answers(pipeline):
    run, _ = pipeline
    models = {
        name: getattr(transformers, kind).from_pretrained(run / "models" / name).eval()
        for name, kind in {
            "sft": "AutoModelForCausalLM",
            "actor": "AutoModelForCausalLM",
            "dpo": "AutoModelForCausalLM",
            "reward": "AutoModelForSequenceClassification",
            "critic": "AutoModelForTokenClassification",
        }.items()
    }
    assert models["reward"].config.num_labels == models["critic"].config.num_labels == 1
    lines = (run / "evaluation/responses.jsonl").read_text().splitlines()
    rows = [r for r in map(json.loads, lines) if r["decoding"] == "greedy"]
    assert len(rows) == 15
    for row in rows:
        folder = run / "models" / {"rlhf": "actor"}.get(row["model"], row["model"])
        template = Template(transformers.AutoTokenizer.from_pretrained(folder))
        prompt = torch.tensor([template.encode_prompt([Message("user", row["prompt"])])])
        asked = [{"role": "user", "content": row["prompt"]}]  # by the chat template saved with it
        told = template.tokenizer.apply_chat_template(asked, return_dict=False)
        assert told == prompt[0].tolist()
        whole = models[folder.name].generate(prompt, max_new_tokens=10, do_sample=False)
        answer = whole[0, prompt.shape[1] :].tolist()
        assert template.decode_response(answer) == row["response"]
        assert len(answer) == row["tokens"]
        with torch.no_grad():
            score = float(models["reward"](whole).logits)
            assert models["critic"](whole).logits.shape == (1, whole.shape[1], 1)
        assert score == pytest.approx(row["reward"], abs=1e-4)


def test_the_report_reads_what_the_stages_wrote(pipeline):
    done = subprocess.run(
        [sys.executable, "-m", "common.evaluation.report", str(pipeline[0])],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((pipeline[0] / "summary.json").read_text())
    assert {"sft", "sample", "reward", "rlhf"} <= summary["stages"].keys()
    result, _ = read(pipeline[0], "rlhf")
    assert summary["stages"]["rlhf"]["kl_per_sequence"] == result["kl_per_sequence"]
    text = (pipeline[0] / "report.md").read_text()
    assert "| SFT | RLHF | best of 2 | dpo |" in text and "which is a bound" in text


@pytest.mark.slow
def test_evaluation_on_one_rank_gives_the_answers_of_two(pipeline):
    run, root = pipeline[0], pipeline[0].parent
    (root / "alone").mkdir()
    shutil.copytree(run / "models", root / "alone" / "models")
    options = ("--config", str(root / "all.yaml"), "--run", str(root / "alone"), "--seed", "3")
    more = ("--further", str(root / "alone/models/dpo"), "--generation_batch_size", "16")
    finish(launch(1, "-m common.evaluation.main", *options, *more))
    two, one = (
        [json.loads(x) for x in (r / "evaluation/responses.jsonl").read_text().splitlines()]
        for r in (run, root / "alone")
    )
    assert len(two) == len(one)
    for row, other in zip(two, one, strict=True):
        assert row.pop("reward") == pytest.approx(other.pop("reward"), abs=1e-4)
        if row["model"] == "best_of_2":
            assert row.pop("scores") == pytest.approx(other.pop("scores"), abs=1e-4)
        assert row == other


# Other ways to run a stage.


def test_one_rank_with_zero_2_trains_like_two_with_zero_3(pipeline, variants):
    """The same examples a step, the same mean, the same weights up to rounding."""
    both = (
        numbers_of(read(pipeline[0], "sft")[1]),
        numbers_of(read(variants["sft zero 2"], "sft")[1]),
    )
    for two, one in zip(*both, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            assert one[name] == pytest.approx(two[name], rel=2e-3), name


@pytest.mark.parametrize("stage, name", [("sft", "sft zero 2"), ("rlhf", "rlhf lora")])
def test_the_same_seed_gives_the_same_run(variants, stage, name):
    first, second = (numbers_of(read(variants[n], stage)[1]) for n in (name, f"{name} again"))
    assert first == second
    model = {"sft": "sft/model", "rlhf": "actor/adapter_model"}[stage]
    weights = [
        (variants[n] / f"models/{model}.safetensors").read_bytes() for n in (name, f"{name} again")
    ]
    assert weights[0] == weights[1]


def test_adapters_with_offloading(pipeline, variants):
    """Only adapters are written (and a reward model's head), and they have learned something."""
    for stage in ("sft", "reward"):
        folder = variants[f"{stage} offload lora"]
        result, rows = read(folder, stage)
        numbers_of(rows)
        saved = folder / "models" / stage
        assert (saved / "adapter_model.safetensors").is_file()
        assert not (saved / "model.safetensors").exists()
        assert rows[-1]["train/grad_norm"] > 0
    losses = [row["train/loss"] for row in read(variants["sft offload lora"], "sft")[1]]
    assert losses[-1] < losses[0]


def test_ppo_with_adapters_starts_at_the_reference_and_moves(variants):
    folder = variants["rlhf lora"]
    _, rows = read(folder, "rlhf")
    assert abs(rows[0]["kl/sequence_k1"]) < 1e-3
    assert rows[1]["policy/grad_norm"] > 0 and rows[2]["kl/sequence_k3"] > 0
    # The critic came from the reward model, whose scores are normalized: it knows something.
    assert rows[0]["value/loss"] > 0
    for model in ("actor", "critic"):
        assert (folder / "models" / model / "adapter_model.safetensors").is_file()


def test_ppo_with_adapters_on_two_ranks_under_zero_3_trains_both_models(variants):
    folder = variants["rlhf lora two ranks"]
    _, rows = read(folder, "rlhf")
    numbers_of(rows)
    assert abs(rows[0]["kl/sequence_k1"]) < 1e-3
    assert rows[1]["policy/grad_norm"] > 0 and rows[0]["value/grad_norm"] > 0
    assert rows[2]["kl/sequence_k3"] > 0
    for model in ("actor", "critic"):
        path = folder / "models" / model / "adapter_model.safetensors"
        second = [v for k, v in load_file(path).items() if "lora_B" in k]
        assert second and all(v.abs().max() > 0 for v in second)  # they start at 0


def test_wandb_offline_logs_beside_the_metrics(variants):
    logged = list((variants["rlhf lora two ranks"] / "rlhf/wandb").glob("offline-run-*/*.wandb"))
    assert len(logged) == 1 and logged[0].stat().st_size > 0  # rank 0's alone


def test_an_unknown_setting_ends_with_a_message_and_code_2(tmp_path):
    process = start("step3_rlhf/main.py", "--run", str(tmp_path), "--clip_rang", "0.1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "did you mean '--clip_range'?" in output and "Traceback" not in output
