"""The recipes: every option is one of its stage, and one runs from end to end."""

import functools
import importlib
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from common.config.parsing import parse_arguments
from common.config.pipeline import MODULES
from common.zero.plan.cards import CARDS, Machines
from common.zero.plan.report import describe
from common.zero.plan.settings import Job
from common.zero.plan.stages import plan_stage
from tests.configs import CONFIGS, write_config
from tests.stages import COLOURS, ROOT, environment, read, write_data, write_rows

RECIPES = sorted((ROOT / "launch/recipes").glob("*.sh"))
DATA = {
    "SFT_DATA": "first.jsonl second.jsonl",
    "PROMPTS": "prompts.jsonl",
    "RANKINGS": "rankings.jsonl",
    "EVAL_DATA": "held_out.jsonl",
}
MODEL = {"any_model": ["tiny"]}


def start(recipe, *arguments, **variables):
    clean = {k: v for k, v in os.environ.items() if k not in DATA and not k.startswith("RLHF_")}
    return subprocess.run(
        ["bash", str(recipe), *MODEL.get(recipe.stem, []), *arguments],
        cwd=ROOT,
        env={**clean, **variables},
        capture_output=True,
        text=True,
    )


@functools.cache
def shown(recipe, *arguments, **variables):
    """Stage -> its settings by name, each stage's options parsed as the stage does."""
    done = start(recipe, *arguments, RLHF_SHOW="1", **{**DATA, **variables})
    assert done.returncode == 0, done.stderr
    settings = {}
    for line in done.stdout.splitlines():
        stage, *options = shlex.split(line)
        types = importlib.import_module(MODULES[stage]).ARGUMENTS
        settings[stage] = {}
        for group in parse_arguments(types, stage, options):
            settings[stage] |= vars(group)
    return settings


def hardware_of(recipe):
    """Nodes, GPUs of a node, and the card's name."""
    (line,) = (part for part in recipe.read_text().splitlines() if part.startswith("hardware"))
    words = [word.replace('"${GPUS_PER_NODE:-8}"', "8") for word in line.split()]
    nodes, gpus, card = (words[words.index(n) + 1] for n in ("--nodes", "--gpus", "--gpu"))
    return int(nodes), int(gpus), card


def ranks_of(recipe):
    nodes, gpus, _ = hardware_of(recipe)
    return nodes * gpus


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_option_of_a_recipe_is_one_of_its_stage_and_its_batches_come_out_even(recipe):
    settings = shown(recipe, "--run", "runs/with blanks")
    assert {"sft", "reward", "rlhf"} <= set(settings)
    assert list(settings) == [name for name in MODULES if name in settings]  # in their order
    assert all(s["run"] == "runs/with blanks" for s in settings.values())
    assert settings["sft"]["data"] == ["first.jsonl", "second.jsonl"]
    assert settings["rlhf"]["data"] == ["prompts.jsonl"]
    ranks = ranks_of(recipe)
    for stage, batch in (("sft", "batch_size"), ("rlhf", "mini_batch_size")):
        assert settings[stage][batch] % (ranks * settings[stage]["micro_batch_size"]) == 0
    assert settings["rlhf"]["rollout_batch_size"] % settings["rlhf"]["mini_batch_size"] == 0
    assert settings["reward"]["batch_size"] % ranks == 0


def test_the_papers_recipe_has_the_papers_numbers():
    recipe = ROOT / "launch/recipes/ice_grt_13b.sh"
    settings = shown(recipe)
    rlhf = settings["rlhf"]
    assert rlhf["actor_learning_rate"] == 5e-6 and rlhf["critic_learning_rate"] == 5e-7
    assert rlhf["clip_range"] == 0.2 and rlhf["gamma"] == 0.95 and rlhf["critic_from"] == "sft"
    assert settings["sample"]["responses"] == 5
    assert {s["dtype"] for name, s in settings.items() if name != "evaluation"} == {"bf16"}
    assert "13b" in settings["sft"]["model"] and ranks_of(recipe) == 64


def test_options_behind_a_stages_name_win():
    recipe = ROOT / "launch/recipes/opt_125m_single.sh"
    arguments = ["--seed", "3", "--only", "sft", "rlhf", "sft:", "--model", "tiny"]
    settings = shown(recipe, *arguments, "--data", "a b.jsonl", "rlhf:", "--steps", "2")
    assert set(settings) == {"sft", "rlhf"} and settings["sft"]["seed"] == 3
    assert settings["sft"]["model"] == "tiny" and settings["rlhf"]["steps"] == 2
    assert settings["sft"]["data"] == ["a b.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "sft has no data: set SFT_DATA"),
        (["--only", "rlhf"], "rlhf has no data: set PROMPTS"),
        (["--only", "rank"], "no stage is left"),
        (["--learning_rate", "1"], "sft: --learning_rate"),
        (["--run"], "--run needs a value"),
    ],
)
def test_a_recipe_says_what_it_lacks(arguments, message):
    done = start(ROOT / "launch/recipes/opt_125m_single.sh", *arguments)
    assert done.returncode == 2 and message in done.stderr


def plan_of(recipe, stage, folder):
    """A stage's plan on the recipe's own hardware, with its model's config and nothing else."""
    settings = shown(recipe)
    name = settings["sft"]["model"]
    model = str(write_config(folder, name if name != "tiny" else "facebook/opt-1.3b"))
    nodes, gpus, card = hardware_of(recipe)
    values = settings[stage] | {"plan_model": model, "plan_examples": 1000}
    if stage == "sft":
        values["model"] = model
    elif values.get("model"):  # a reward model of another size than the actor's
        other = values["model"] if values["model"] in CONFIGS else "facebook/opt-125m"
        values["model"] = str(write_config(folder / "other", other))
    return plan_stage(stage, Job(values, Machines(CARDS[card], nodes, gpus)))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipes_sft_is_planned_and_fits_its_hardware(recipe, tmp_path):
    plan = plan_of(recipe, "sft", tmp_path)
    assert plan.units > 0 and plan.seconds > 0
    assert plan.peak <= plan.job.machines.card.memory
    assert plan.stage in describe(plan)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sample", "reward", "rlhf", "evaluation"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipes_later_stages_are_planned(recipe, stage, tmp_path):
    if stage not in shown(recipe):
        pytest.skip("the recipe has no such stage")
    plan = plan_of(recipe, stage, tmp_path)
    assert plan.peak > 0 and plan.unit.tokens > 0
    assert plan.stage in describe(plan)


def test_a_recipe_is_planned_by_one_command_and_nothing_is_written(tmp_path):
    model, run = write_config(tmp_path / "model", "facebook/opt-125m"), tmp_path / "run"
    done = subprocess.run(
        ["bash", "launch/plan.sh", "launch/recipes/opt_125m_single.sh", "--gpu", "A100-40G"]
        + ["--nodes", "2", "--gpus", "4", "--run", str(run), "--only", "sft", "reward"]
        + ["sft:", "--model", str(model)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in DATA},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for stage in ("sft", "reward"):
        assert f"{stage}: plan for 2 nodes of 4 × A100-40G" in done.stdout
    assert "model 125.24M weights" in done.stdout and "It fits" in done.stdout
    assert not run.exists() and [p.name for p in model.iterdir()] == ["config.json"]


def test_a_plan_without_a_recipe_says_so():
    done = subprocess.run(
        ["bash", str(ROOT / "launch/plan.sh"), "--gpu", "H100-80G"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "give a recipe" in done.stderr


def write_rankings(folder):
    write_data(folder)
    rows = [
        {
            "prompt": f"Is the sky {colour}?",
            "responses": [f"The sky is {colour}.", "Yes.", "No, it", "The", "sky"],
            "orders": [[0, 1, 2, 3, 4]],
        }
        for colour in COLOURS
    ]
    write_rows(folder / "rankings.jsonl", rows)


@pytest.mark.slow
def test_a_recipe_runs_from_end_to_end(tmp_path):
    write_rankings(tmp_path)
    text = ["--max_prompt_tokens", "40", "--max_response_tokens", "8"]
    run = tmp_path / "a run"
    arguments = ["--run", str(run), "sft:", *text, "--tiny_layers", "1", "--tiny_width", "32"]
    arguments += ["--tiny_heads", "2", "--tiny_vocabulary", "300", "--eval_fraction", "0.2"]
    arguments += ["reward:", *text, "--eval_fraction", "0.3", "rlhf:", *text, "--steps", "2"]
    arguments += ["--rollout_batch_size", "8", "--mini_batch_size", "8", "evaluation:", *text]
    files = {
        "SFT_DATA": "sft.jsonl",
        "PROMPTS": "prompts.jsonl",
        "RANKINGS": "rankings.jsonl",
        "EVAL_DATA": "held_out.jsonl",
    }
    variables = {name: str(tmp_path / file) for name, file in files.items()}
    done = start(ROOT / "launch/recipes/any_model.sh", *arguments, **environment(**variables))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert read(run, "rlhf")[0]["steps"] == 2 and Path(run / "models/actor").is_dir()
    assert read(run, "evaluation")[0]


def test_dpo_runs_only_where_it_is_asked_for():
    recipe = ROOT / "launch/recipes/llama_8b_lora_single.sh"
    assert "dpo" not in shown(recipe)
    settings = shown(recipe, "dpo:", "--dpo_beta", "0.2")
    assert list(settings)[-2:] == ["dpo", "evaluation"]
    assert settings["dpo"]["dpo_beta"] == 0.2 and settings["dpo"]["lora_rank"] == 16
    assert settings["dpo"]["data"] == ["rankings.jsonl"]
    assert list(shown(recipe, "--only", "dpo")) == ["dpo"]


def test_a_stage_that_is_named_is_added_in_its_place():
    recipe = ROOT / "launch/recipes/opt_125m_single.sh"
    judge = ["ai_rank:", "--endpoint", "http://127.0.0.1:1/v1", "--judge_model", "judge"]
    made = ["pairs:", "--rankings", "runs/x/ai_rank/rankings.jsonl", "runs/x/import/rankings.jsonl"]
    settings = shown(recipe, "import:", "--files", "theirs.json", *made, *judge, "sample:")
    assert list(settings)[1:6] == ["sample", "ai_rank", "import", "pairs", "reward"]
    assert settings["ai_rank"]["judge_model"] == "judge"
    assert settings["import"]["files"] == ["theirs.json"]
    assert settings["reward"]["data"] == []  # the pairs that are made of them
