"""The page of all ablations: every number in its place, nothing taken for markup."""

from dataclasses import replace

import pytest

from common.evaluation.ablation.__main__ import main, report
from common.evaluation.ablation.compare import Outcome
from common.evaluation.ablation.page import overview, page, picture
from common.evaluation.ablation.spec import Ablation, Claim

ABLATION = Ablation(
    "kl",
    "KL | coefficient",
    "Does it help?",
    "0.06",
    {"0.06": {}, "none": {"rlhf": {"kl_coefficient": 0}}, "big": {"rlhf": {}}},
    {"none": Claim("worse", "§3")},
)


def outcome(seed, domain, general):
    scores = {"domain": {"a": domain}, "general": {"b": general}}
    facts = {"kl": 2.0, "length": 20.0}
    return Outcome(seed, scores, {"domain": 50.0, "general": 60.0}, facts, ([1, 2], [50.0, domain]))


FOUND = {
    "0.06": {0: outcome(0, 80.0, 90.0), 1: outcome(1, 82.0, 90.0)},
    "none": {0: outcome(0, 70.0, 90.0), 1: outcome(1, 72.0, 91.0)},
    "big": {},
}


def test_the_table_against_the_paper():
    lines = overview({"kl": (ABLATION, FOUND)}).splitlines()
    assert len(lines) == 4
    assert lines[2] == (
        "| KL &#124; coefficient | none, against 0.06 | 2 | worse by 10.0 ± 0.0 "
        "| no difference seen (+0.5 ± 6.4) | worse (§3) | seen here, too |"
    )
    assert "| big, against 0.06 | 0 | not measured | not measured | – | says nothing |" in lines[3]


def test_the_page_has_every_arm_and_its_picture():
    text = page({"kl": (ABLATION, FOUND)}, {"kl": "kl.png"})
    assert "![KL &#124; coefficient](kl.png)" in text
    assert "| 0.06 | 0, 1 | 81.0 ± 1.4 | 90.0 ± 0.0 | 2.00 | 20.0 |" in text
    assert "| big | none finished | – | – | – | – |" in text
    assert "in domain: **worse by 10.0 ± 0.0**" in text


def test_the_picture_is_a_png_also_of_one_seed():
    assert picture(ABLATION, FOUND).startswith(b"\x89PNG")
    one = {"0.06": {0: outcome(0, 80.0, 90.0)}, "none": {}, "big": {}}
    assert picture(ABLATION, one).startswith(b"\x89PNG")


def test_a_report_of_nothing_says_so(tmp_path, capsys):
    with pytest.raises(Exception, match="no run of these ablations and seeds has finished"):
        report([ABLATION], [0], tmp_path)
    assert main(["report", "nope", "--run", str(tmp_path)]) == 2
    assert "ablate: error: unknown ablation 'nope'" in capsys.readouterr().err


def test_scores_of_a_reward_model_have_two_digits_and_no_hundred():
    by_reward = {
        arm: {s: replace(o, judge="one hash") for s, o in seeds.items()}
        for arm, seeds in FOUND.items()
    }
    text = page({"kl": (ABLATION, by_reward)}, {"kl": "kl.png"})
    assert "worse by 10.00 ± 0.00" in text and "reward models, which PPO trained against" in text
    assert "| 0.06 | 0, 1 | 81.00 ± 1.41 |" in text


def test_seeds_that_cannot_be_are_refused_and_doubled_ones_count_once(tmp_path, capsys):
    words = ["kl", "--run", str(tmp_path), "--seeds"]
    assert main(["plan", *words, "3", "-1"]) == 2
    assert "ablate: error: --seeds: -1 must be at least 0" in capsys.readouterr().err
    assert main(["plan", *words, "0", "0"]) == 0
    runs = [x for x in capsys.readouterr().out.splitlines() if x.startswith("0 ")]
    assert len(runs) == len(set(runs)) == 3
    assert main(["plan", "none.yaml", "--run", str(tmp_path)]) == 2
    assert "none.yaml: there is no such file" in capsys.readouterr().err
