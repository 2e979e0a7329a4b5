"""A policy as the harness's model: its numbers are those of the harness's own model."""

import json

import lm_eval.evaluator
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from common.config.arguments import SamplingArguments, ZeroArguments
from common.errors import NotFinite, UserError
from common.evaluation.benchmarks import watch as watch_module
from common.evaluation.benchmarks.asking import ask
from common.evaluation.benchmarks.context import Context
from common.evaluation.benchmarks.model import PolicyLM, shared_out, stops_at
from common.evaluation.benchmarks.watch import BenchmarkWatch, BenchmarkWatchArguments
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.policy import PolicyModel
from common.training.engine import build_frozen, process_group
from tests.common.evaluation.benchmarks.small import QUESTIONS, small_part
from tests.common.ppo.small import PROMPTS, SETTINGS, Reward, small_trainer
from tests.models import byte_tokenizer, tiny_causal_lm
from tests.ranks import run_ranks, shard_everything


def policy(engine, batch_size=3, **changes):
    rollouts = HybridRollout(
        engine,
        SamplingArguments(),
        RolloutArguments(**changes),
        eos_id=2,
        pad_id=0,
        max_new_tokens=256,
    )
    return PolicyLM(rollouts, byte_tokenizer(), batch_size)


@pytest.fixture(scope="module")
def alone():
    """Rows of both small tasks, by one process."""
    model = policy(PolicyModel(tiny_causal_lm("llama")))
    return {kind: ask(small_part(kind), model) for kind in ("choices", "text")}


def test_numbers_are_those_of_the_harness_called_by_hand(alone, monkeypatch):
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)  # slow
    parts = {kind: small_part(kind) for kind in alone}
    by_hand = lm_eval.simple_evaluate(
        model=HFLM(pretrained=tiny_causal_lm("llama"), tokenizer=byte_tokenizer(), batch_size=2),
        tasks=[part.task for part in parts.values()],
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),  # the list of all tasks takes seconds
    )
    for kind, rows in alone.items():
        samples = by_hand["samples"][f"small_{kind}"]
        assert len(rows) == len(samples) == len(QUESTIONS)
        assert [r["score"] for r in rows] == [s[parts[kind].metric] for s in samples]
        found = sum(r["score"] for r in rows) / len(rows)
        assert found == by_hand["results"][f"small_{kind}"][f"{parts[kind].metric},none"]
    texts = [s["resps"][0][0] for s in by_hand["samples"]["small_text"]]
    assert [row["output"] for row in alone["text"]] == texts and all(texts)
    for row, sample in zip(alone["choices"], by_hand["samples"]["small_choices"], strict=True):
        for (logprob, greedy), ((expected, same),) in zip(
            row["output"], sample["resps"], strict=True
        ):
            assert logprob == pytest.approx(expected, abs=1e-4) and greedy == same


def test_a_row_says_what_was_asked_said_and_wanted(alone):
    row = alone["text"][1]
    assert row["question"] == f"Question: {QUESTIONS[1]['question']}\nAnswer:"
    assert row["answer"] == row["output"] and row["target"] == QUESTIONS[1]["choices"][1]
    assert (row["shots"], row["shots_dropped"], row["prompt_cut"]) == (1, 1, False)
    assert json.loads(json.dumps(row)) == row


def test_an_answer_ends_before_its_stop_sequence_and_is_no_longer_generated_then(alone):
    whole = max((row["output"] for row in alone["text"]), key=len)
    asked = [len(ids) for ids in _lengths("\n")]
    stop = whole[2:4]
    cut = ask(small_part("text", generation_kwargs={"until": [stop], "max_gen_toks": 24}), _model())
    plain = ask(small_part("text", generation_kwargs={"until": [], "max_gen_toks": 24}), _model())
    assert [row["output"] for row in cut] == [row["output"].split(stop)[0] for row in plain]
    assert any(row["output"] != other["output"] for row, other in zip(cut, plain, strict=True))
    assert max(map(len, _lengths(stop))) < max(asked)


def _model():
    return policy(PolicyModel(tiny_causal_lm("llama")))


def _lengths(stop):
    """Token ids of what is generated where a text ends a response."""
    model = _model()
    prompts = [model.tok_encode(f"Question: {row['question']}\nAnswer:") for row in QUESTIONS]
    rollout = model.rollouts.respond(
        prompts, 0, greedy=True, max_new_tokens=24, stop=stops_at(model.tokenizer, [stop])
    )
    return rollout.response_ids()


def test_prompts_that_are_too_long_lose_their_beginning_and_say_so():
    model = _model()
    model.context = Context(model.tokenizer, 60)
    rows = ask(small_part("text"), model)
    lengths = [len(row["question"]) for row in rows]  # one token a byte
    assert [row["prompt_cut"] for row in rows] == [length + 12 > 60 for length in lengths]
    assert {row["prompt_cut"] for row in rows} == {True, False}
    rows = ask(small_part("choices"), model)
    assert {row["prompt_cut"] for row in rows} == {True, False}


def test_an_answer_has_at_most_half_of_the_context():
    context = Context(byte_tokenizer(), 40)
    assert context.room(10) == 10 and context.room(400) == 20
    assert context.fits("x" * 20, 400) and not context.fits("x" * 21, 400)


def test_text_never_becomes_a_special_token():
    assert 2 not in Context(byte_tokenizer(), 40).encode("a</s>b")


def test_the_sampler_is_held_against_the_training_forward_once():
    model, checks = _model(), []
    check = model.rollouts.check
    model.rollouts.check = lambda *found: checks.append(found) or check(*found)
    for _ in range(2):
        ask(small_part("text"), model, limit=2)
    assert len(checks) == 1


def test_sampling_is_refused():
    kwargs = {"until": ["\n"], "do_sample": True, "temperature": 1.0}
    with pytest.raises(UserError, match="asks for sampling"):
        ask(small_part("text", generation_kwargs=kwargs), _model())


def test_a_model_that_answers_nan_gets_no_score():
    broken = tiny_causal_lm("llama")
    torch.nn.init.constant_(broken.get_output_embeddings().weight, float("nan"))
    for kind in ("choices", "text"):
        with pytest.raises(NotFinite, match="NaN"):
            ask(small_part(kind), policy(PolicyModel(broken)))


def test_work_is_shared_out_in_the_order_of_its_weight():
    seen = []

    def work(items):
        seen.extend(items)
        return [x * 10 for x in items]

    assert shared_out([3, 1, 2], lambda x: x, work) == [30, 10, 20] and seen == [1, 2, 3]
    with pytest.raises(NotFinite, match="no number"):
        shared_out([1], lambda x: x, lambda items: (_ for _ in ()).throw(NotFinite("no number")))


def _training(benchmarks):
    """Metrics of two PPO steps with or without benchmarks after them, and a draw behind them."""
    torch.manual_seed(1)
    trainer = small_trainer(
        SETTINGS,
        Reward(lambda name, ids: float(len(ids))),
        vocabulary=259,
        max_response_tokens=6,
        zero=ZeroArguments("3"),
    )
    watch = BenchmarkWatch(
        BenchmarkWatchArguments(benchmark_every=benchmarks, benchmarks=["arc_e"]),
        trainer.rollouts,
        byte_tokenizer(),
        seed=0,
    )
    rank = torch.distributed.get_rank()
    metrics = []
    for step in (1, 2):
        values = trainer.iterate(step, PROMPTS[rank::2]) | watch.after(step, 2)
        metrics.append({k: v for k, v in values.items() if k.split("/")[0] not in SPENT})
    return metrics, float(torch.rand(1))


SPENT = ("time", "memory")
"""Groups of metrics that differ from run to run."""


def two_ranks():
    shard_everything()
    watch_module.build_tasks = lambda *_, **__: ([small_part("choices"), small_part("text")], [])
    with process_group():
        engine = build_frozen(
            PolicyModel(tiny_causal_lm("llama")), zero=ZeroArguments("3"), dtype=torch.float32
        )
        sharded = hasattr(next(engine.parameters()), "ds_id")
        model = policy(engine, batch_size=2, gather="layers")
        rows = {kind: ask(small_part(kind), model) for kind in ("choices", "text")}
        few = ask(small_part("text"), model, limit=1)  # fewer than ranks
        return rows, few, sharded, _training(0), _training(1)


@pytest.fixture(scope="module")
def both():
    return run_ranks(two_ranks, 2, start_group=False)


def test_two_ranks_under_zero_3_find_what_one_process_finds(both, alone):
    for rows, few, sharded, *_ in both:
        assert sharded and few == rows["text"][:1] == alone["text"][:1]
        assert rows["text"] == alone["text"]
        for row, expected in zip(rows["choices"], alone["choices"], strict=True):
            output, wanted = row.pop("output"), {**expected}.pop("output")
            assert output == [[pytest.approx(p, abs=1e-4), g] for p, g in wanted]
            assert row == {k: v for k, v in expected.items() if k != "output"}


def test_benchmarks_in_the_middle_change_no_bit_of_the_training(both):
    for *_, (plain, draw), (watched, other_draw) in both:
        assert draw == other_draw
        for values, others in zip(plain, watched, strict=True):
            assert "benchmark/arc_e" not in values and 0 <= others.pop("benchmark/arc_e") <= 100
            assert values == others
        assert plain[0] != plain[1]


def test_benchmarks_come_every_so_many_steps_after_the_first_and_after_the_last():
    watch = BenchmarkWatch.__new__(BenchmarkWatch)
    watch.parts = []
    watch.settings = BenchmarkWatchArguments(benchmark_every=4)
    assert [s for s in range(1, 11) if watch.after(s, 10)] == [1, 4, 8, 10]
    watch.settings = BenchmarkWatchArguments()
    assert not any(watch.after(s, 10) for s in range(1, 11))


def test_a_benchmark_that_cannot_be_asked_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(
        watch_module, "build_tasks", lambda *_, **__: ([], ["ARC-E: no folder arc/"])
    )
    rollouts = _model().rollouts
    with pytest.raises(UserError, match="ARC-E: no folder arc/"):
        BenchmarkWatch(BenchmarkWatchArguments(benchmark_every=1), rollouts, byte_tokenizer(), 0)
    with pytest.raises(UserError, match="unknown 'arc'.*did you mean 'arc_"):
        BenchmarkWatchArguments(benchmarks=["arc"])
