"""The stage: what is done is on the disk and not done again, and other settings are refused."""

import json

import pytest

from common.config.arguments import ModelArguments, RunArguments, ZeroArguments
from common.errors import UserError
from common.evaluation.benchmarks import asking
from common.evaluation.benchmarks import run as stage_module
from common.evaluation.benchmarks.run import BenchmarkArguments, answers_of, main
from common.evaluation.benchmarks.selection import chosen_benchmarks, folders_of
from common.hybrid_engine.engine import RolloutArguments
from common.training.stage import Finished, Stage
from tests.common.evaluation.benchmarks.small import QUESTIONS, small_part
from tests.models import save_tiny


class Asked(list):
    """(model's context, subtask) of everything that is asked; a failure can be planned."""

    fails_at = None

    def __call__(self, part, model, limit):
        if len(self) == self.fails_at:
            raise KeyboardInterrupt
        self.append(part.subtask)
        return self.ask(part, model, limit)


@pytest.fixture
def asked(monkeypatch):
    found = Asked()
    found.ask = asking.ask
    monkeypatch.setattr(asking, "ask", found)
    built = [small_part("text"), small_part("choices", "mmlu")]
    monkeypatch.setattr(
        stage_module, "build_tasks", lambda *_, **__: (built, ["WinoGrande: no folder"])
    )
    return found


@pytest.fixture
def here(tmp_path):
    for number, name in enumerate(("sft", "actor")):
        save_tiny(tmp_path / "run/models" / name, seed=number)
    return tmp_path


def run(here, settings=None, **changes):
    """The command, as if in a new process."""
    arguments = RunArguments(run=str(here / "run"), progress=False, **changes)
    chosen = BenchmarkArguments(**{"limit": 5, **(settings or {})})
    stage = Stage("benchmarks", arguments, {}, {"limit": chosen.limit, "models": chosen.models})
    try:
        main(stage, arguments, chosen, ModelArguments(), RolloutArguments(), ZeroArguments("0"))
    finally:
        if stage._lock:
            stage._lock.close()


def test_a_run_goes_on_with_what_is_missing_and_then_is_finished(here, asked, capsys):
    asked.fails_at = 3
    with pytest.raises(KeyboardInterrupt):
        run(here)
    assert asked == ["small_text", "small_choices", "small_text"]
    asked.fails_at = None
    run(here)
    assert asked[3:] == ["small_choices"]
    with pytest.raises(Finished):
        run(here)
    found = json.loads((here / "run/benchmarks/benchmarks.json").read_text())
    assert list(found["models"]) == ["sft", "actor"]
    rows = [
        json.loads(line)
        for line in (here / "run/benchmarks/answers/actor/mmlu/small_choices.jsonl")
        .read_text()
        .splitlines()
    ]
    cell = found["models"]["actor"]["mmlu"]
    assert len(rows) == cell["n"] == 5
    assert cell["score"] == pytest.approx(100 * sum(r["score"] for r in rows) / 5)
    assert found["left_out"] == ["WinoGrande: no folder"]
    assert "sft" in capsys.readouterr().out
    assert "ICE-GRT 13B (paper)" in (here / "run/benchmarks/benchmarks.md").read_text()


def test_answers_of_an_earlier_command_are_read_as_the_parsers_do_now(here, asked):
    run(here, {"models": ["{run}/models/sft"]})
    files = {
        name: here / f"run/benchmarks/answers/sft/{name}.jsonl"
        for name in ("arc_e/small_text", "mmlu/small_choices")
    }
    kept = {name: file.read_text() for name, file in files.items()}
    for file in files.values():  # as a parser would have it that could read nothing
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        nothing = {"answer": None, "correct": True, "unparsed": True, "score": 0.25}
        file.write_text("".join(json.dumps(row | nothing) + "\n" for row in rows))
    run(here, allow_changes=["models", "inputs"])
    assert asked[2:] == ["small_text", "small_choices"]  # of the second model alone
    assert files["arc_e/small_text"].read_text() == kept["arc_e/small_text"]
    assert '"score": 0.25' in files["mmlu/small_choices"].read_text()  # the harness's own
    rows = [json.loads(line) for line in kept["arc_e/small_text"].splitlines()]
    rows[1]["question"] = "as it was asked then"
    files["arc_e/small_text"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(here, {"models": ["{run}/models/sft"]}, allow_changes=["models", "inputs"])
    assert asked[4:] == ["small_text"]
    assert files["arc_e/small_text"].read_text() == kept["arc_e/small_text"]


def test_other_settings_are_refused_and_allowed_ones_ask_anew_what_they_change(here, asked):
    only = ["{run}/models/sft"]
    run(here, {"models": only})
    with pytest.raises(UserError, match="limit was 5, is 0"):
        run(here, {"models": only, "limit": 0})
    run(here, allow_changes=["models", "inputs"])
    assert asked[2:] == ["small_text", "small_choices"]  # of the second model alone
    run(here, {"limit": 0}, allow_changes=["limit", "models", "inputs"])
    assert len(asked) == 8
    found = json.loads((here / "run/benchmarks/benchmarks.json").read_text())
    assert found["models"]["sft"]["arc_e"]["n"] == len(QUESTIONS)


def test_a_suite_is_in_the_order_of_the_tables_columns():
    assert chosen_benchmarks("table1", [])[:2] == ["mmlu", "agieval"]
    assert len(chosen_benchmarks("table1", [])) == 12
    assert chosen_benchmarks("ablation", []) == ["nq", "webqs", "lambada"]
    assert len(chosen_benchmarks("all", [])) == 15
    assert chosen_benchmarks("table1", ["nq", "bbh"]) == ["bbh", "nq"]
    with pytest.raises(UserError, match="unknown 'arc'"):
        BenchmarkArguments(benchmarks=["arc"])


def test_answers_of_another_model_or_precision_are_others():
    def facts(path="hub/one", content="hub", **changes):
        return answers_of(
            path, content, BenchmarkArguments(), ModelArguments(**changes), RolloutArguments()
        )

    assert facts() != facts("hub/two")  # of a hub name nothing else tells them apart
    assert facts("a/one", "hash") == facts("b/one", "hash")
    assert facts(dtype="fp32") != facts(dtype="bf16")
    assert facts(most_logits=1000) == facts()


def test_only_folders_of_chosen_benchmarks_bind_a_run(tmp_path):
    for name in ("MMLU", "arc", "photos"):
        (tmp_path / name).mkdir()
    assert folders_of(tmp_path, ["mmlu"]) == [str(tmp_path / "MMLU")]
    assert folders_of(tmp_path, ["arc_c", "gsm8k"]) == [str(tmp_path / "arc")]
    (tmp_path / "NQ-Open").mkdir()  # read as well: case and "-" don't matter
    assert folders_of(tmp_path, ["nq"]) == [str(tmp_path / "NQ-Open")]
    assert folders_of(None, ["mmlu"]) == folders_of(tmp_path / "none", ["mmlu"]) == []


def test_only_language_models_are_asked(here, asked):
    score = here / "run/models/reward"
    save_tiny(score)
    config = json.loads((score / "config.json").read_text())
    config["architectures"] = ["LlamaForSequenceClassification"]
    (score / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="reward: a reward model, which cannot talk"):
        run(here, {"models": [str(score)]})
    with pytest.raises(UserError, match=r"no such model folder"):
        run(here, {"models": [str(here / "nowhere")]})
    with pytest.raises(UserError, match=r"a run's models are in it: .*run/models/actor"):
        run(here, {"models": [str(here / "run")]})
    with pytest.raises(UserError, match="no model is named"):
        run(here / "empty")
    assert asked == []
