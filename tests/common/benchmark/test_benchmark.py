"""What the benchmarks measure is equal work, and their ratios say what they claim."""

import importlib.util
import json

import pytest
import torch

from common.benchmark import report, roofline, supervised
from common.benchmark.examples import reward_rows, sft_rows
from common.benchmark.iteration import build, measure
from common.benchmark.rollouts import measure as measure_rollouts
from common.benchmark.shapes import BOS, EOS, QUICKSTART, Lengths, Shape, causal_lm
from common.benchmark.supervised import BATCHES, summarized
from common.config.arguments import ZeroArguments
from common.errors import UserError
from common.training.engine import process_group
from common.training.peak import PeakMemory
from tests.ranks import run_ranks

SMALL = Shape("small", 16, 1, 2, 50, 32)
FEW = Lengths("few", 8, 1, 3, 6, 8, 4)


def test_prompts_have_the_lengths_they_claim():
    assert len(FEW.draw(50)) == 8
    twice = Lengths("twice", 8, 2, 3, 6, 8, 4)
    rows = twice.draw(50)
    assert len(rows) == 16 and rows[0] == rows[1] and rows == twice.draw(50)
    assert all(3 <= len(r) <= 6 and r[0] == BOS and EOS not in r for r in rows)


@pytest.mark.parametrize("mean", [4, 20])
def test_responses_end_with_the_chance_that_gives_the_mean(mean):
    model = causal_lm(SMALL, mean)
    with torch.no_grad():
        chance = model(torch.tensor([[BOS, 7, 9]])).logits[0, -1].softmax(-1)[EOS]
    assert float(chance) == pytest.approx(1 / mean, rel=0.1)
    with torch.no_grad():
        assert causal_lm(SMALL, 0)(torch.tensor([[BOS, 7]])).logits[0, -1].argmin() == EOS


@pytest.mark.parametrize("batch", [None, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("task", ["sft", "reward"])
def test_both_contenders_train_on_the_same_tokens(tmp_path, task, batch):
    """Each counts what its batches hold; TRL's only where launch/benchmark.sh has installed it."""
    batch = batch or BATCHES[task]
    rows = (sft_rows if task == "sft" else reward_rows)(QUICKSTART, 3, batch)
    assert len(rows) == 3 * batch
    tokens = sum(len(a) + len(b) for a, b in rows)
    names = ["native"] + (["trl"] if importlib.util.find_spec("trl") else [])
    for name in names:
        found = supervised.measure(tmp_path, name, task, QUICKSTART.name, 3, batch)
        assert found["tokens"] == tokens, name
        assert found["seconds"] > 0 and found["megabytes"] > 1


def test_a_ratio_is_above_1_where_ours_is_ahead():
    ours = {"seconds": 1.0, "megabytes": 50.0, "tokens": 7}
    theirs = {"seconds": 2.0, "megabytes": 200.0, "tokens": 7}
    slower = {**ours, "seconds": 1.5}
    row = summarized("sft", "small", 32, {"native": [ours, slower], "trl": [theirs, theirs]})
    assert row["ratio"] == 2.0 and row["memory_ratio"] == 4.0
    with pytest.raises(RuntimeError, match="not train on the same tokens"):
        summarized("sft", "small", 32, {"native": [ours], "trl": [{**theirs, "tokens": 8}]})


def written_parts(folder):
    """Every part of a benchmark, with a ratio of its own in each row."""
    number = 1.0
    expected = {}
    for part in ("rollouts", "sharded", "iteration", "supervised", "roofline"):
        rows = []
        for shape in ("quickstart", "width 256"):
            kinds = {
                "rollouts": ("real_lengths", "fixed_lengths", "one_sample"),
                "sharded": ("real_lengths", "real_lengths_whole_weights"),
                "iteration": ("full length",),
                "supervised": ("sft", "reward"),
                "roofline": ("",),
            }[part]
            for kind in kinds:
                number += 0.25
                row = {"shape": shape, "lengths": kind, "task": kind, "ranks": 1, "ratio": number}
                row |= {"rows": 8, "decode_share": 0.5, "train_share": 0.4}
                row |= {"memory_ratio": number + 100.0}
                row |= {f"{p}_seconds": 1.0 for p in ("generate", "score", "train")}
                row |= {f"{b}_tokens_per_second": number for b in ("native", "generate")}
                rows.append(row)
                expected[part, shape, kind] = number
        (folder / part).mkdir()
        (folder / part / "rows.json").write_text(json.dumps(rows))
    return expected


def test_the_page_and_the_ratios_come_from_the_parts(tmp_path, capsys):
    expected = written_parts(tmp_path)
    report.main(tmp_path)
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["rollout_vs_generate"] == {
        "real_lengths": expected["rollouts", "quickstart", "real_lengths"],
        "fixed_lengths": expected["rollouts", "quickstart", "fixed_lengths"],
        "one_sample": expected["rollouts", "quickstart", "one_sample"],
        "zero3_2_ranks": expected["sharded", "quickstart", "real_lengths"],
        "zero3_2_ranks_whole": expected["sharded", "quickstart", "real_lengths_whole_weights"],
    }
    wide = found["rollout_vs_generate_width_256"]["fixed_lengths"]
    assert wide == expected["rollouts", "width 256", "fixed_lengths"]
    assert found["sft_vs_trl"] == expected["supervised", "quickstart", "sft"]
    assert found["reward_memory_vs_trl"] == expected["supervised", "quickstart", "reward"] + 100
    assert found["machine"]["device"] and len(found["raw"]["rollouts"]) == 6
    text = (tmp_path / "benchmark.md").read_text()
    for name in ("rollouts.png", "iteration.png", "roofline.png"):
        assert name in text and (tmp_path / name).stat().st_size > 1000
    assert "sft_vs_trl" in capsys.readouterr().out


def test_parts_that_were_not_run_are_left_out(tmp_path, capsys):
    written_parts(tmp_path)
    (tmp_path / "sharded/rows.json").unlink()
    report.main(tmp_path)
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["rollout_vs_generate"]["zero3_2_ranks"] is None
    assert "zero3" not in capsys.readouterr().out
    with pytest.raises(UserError, match="no part of a benchmark"):
        report.main(tmp_path / "empty")


def test_bytes_and_operations_by_hand():
    """Two layers of width 4: four squares and three feed-forwards each, and the head."""
    shape = Shape("hand", width=4, layers=2, heads=1, vocabulary=10, feed_forward=6)
    elements = 2 * (4 * 4 * 4 + 3 * 4 * 6) + 10 * 4
    model = causal_lm(shape, 0)
    counted = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert shape.matrix_elements == counted == elements
    work = roofline.Work(rows=3, prompt=5, new_tokens=4, train_rows=2, train_length=8)
    # Keys and values of (5 + 2) tokens of 3 rows in 2 layers, width 4; two bytes each.
    assert roofline.decode_bytes(shape, work, 2) == 2 * (elements + 2 * 7 * 3 * 2 * 4)
    # 16 tokens; a token sees four and a half others in the mean, taken as four.
    scores_and_sums = 2 * (2 * 4 * 4) * 2
    assert roofline.train_flops(shape, work) == 3 * 16 * (2 * elements + scores_and_sums)


def test_shares_of_the_machine_are_measured():
    row = roofline.measure(SMALL, roofline.Work(4, 3, 9, 2, 8), repeats=1)
    assert row["dtype"] in ("float32", "bfloat16")
    assert all(v > 0 for k, v in row.items() if k.endswith(("second", "teraflops", "step")))
    assert 0 < row["decode_share"] < 1 and 0 < row["train_share"] < 1
    moved = row["decode_share"] * row["copy_gigabytes_per_second"]
    steps = row["decode_tokens_per_second"] / 4
    assert moved == pytest.approx(row["decode_gigabytes_per_step"] * steps)


def test_memory_is_counted_from_the_level_on():
    held = torch.ones(2**23)  # 32 MB before
    memory = PeakMemory()
    assert memory.megabytes() < 16
    more = torch.ones(2**25)  # 128 MB
    del more
    assert 100 < memory.megabytes() < 200 and len(held)


def measurements(sharded):
    """One row of each benchmark that needs a process group; nothing is said about the times."""
    with process_group():
        rollouts = measure_rollouts(SMALL, FEW, 1, sharded=sharded)
        iteration = measure(SMALL, FEW, 1, ZeroArguments())
        trainer = build(SMALL, FEW, ZeroArguments(), steps=2)
        return rollouts, iteration, trainer.rollouts.backend


@pytest.mark.parametrize("ranks", [1, 2])
def test_rollouts_and_iterations_are_measured(ranks):
    for rollouts, iteration, backend in run_ranks(
        measurements, ranks, ranks == 2, start_group=False
    ):
        assert rollouts["ranks"] == ranks and rollouts["zero"] == (3 if ranks == 2 else 0)
        ratio = rollouts["native_tokens_per_second"] / rollouts["generate_tokens_per_second"]
        assert rollouts["ratio"] == pytest.approx(ratio)
        shares = [iteration[f"{phase}_share"] for phase in ("generate", "score", "train")]
        assert sum(shares) == pytest.approx(1.0) and iteration["tokens_per_second"] > 0
        assert backend == "native"
