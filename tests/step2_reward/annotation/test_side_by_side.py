"""Three labelers side by side, in real browsers; export, pairs and a reward model from them."""

import json
import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed")

from common.files import read_json_lines
from step2_reward.annotate import AnnotateArguments, main
from tests.models import save_tiny
from tests.stages import finish, start
from tests.step2_reward.annotation.browsing import NAMES, Person, answers_of, person, serve
from tests.step2_reward.annotation.serving import ROOT

WORDS = "a few words more of this answer".split()

pytestmark = pytest.mark.browser


def short_and_long(count: int) -> list[dict]:
    """Responses that differ in length, for labelers who like short ones."""
    return [
        {
            "prompt": f"question {i}?",
            "responses": [" ".join(WORDS[: 1 + (i + n) % 5]) + f" {n}." for n in range(5)],
        }
        for i in range(count)
    ]


def side_by_side(browser, server, prompts: int) -> None:
    """Three labelers take turns at the same prompts."""
    anna, ben, carla = (person(browser, server, name) for name in NAMES)
    for turn in range(prompts):
        anna.click_ranking()
        anna.save()

        prompt = ben.prompt()  # by keyboard alone, from here to the next prompt
        ben.key_in_ranking(digits=turn % 2 == 1)
        ben.page.keyboard.press("Control+Enter")
        ben.wait_for_another(prompt)

        carla.drag_ranking()
        if turn == prompts // 2:
            carla = lose_connection_and_come_back(browser, server, carla)
        elif turn == prompts // 2 + 1:
            lose_connection_for_a_moment(carla)
        else:
            carla.save()
    for someone in (anna, ben, carla):
        assert someone.page.locator("#message-title").inner_text() == "Thank you, all done"
        assert not someone.complaints
        someone.page.context.close()


def lose_connection_and_come_back(browser, server, carla) -> Person:
    """The answer waits in the browser, whose page is closed and opened again later."""
    before = answers_of(server, "carla")
    context = carla.page.context
    context.set_offline(True)
    carla.page.locator("#save").click()
    notice = carla.page.locator("#notice")
    notice.get_by_text("Not saved yet").wait_for()
    assert "kept in this browser" in notice.inner_text()
    assert carla.page.locator("#status").inner_text() == "Not saved yet"
    # A page that is being closed may see the connection come back, and send what is to wait.
    carla.page.evaluate("() => { window.fetch = () => new Promise(() => {}); }")
    carla.page.close()
    context.set_offline(False)
    assert answers_of(server, "carla") == before
    again = Person(context.new_page(), server.link("carla"))
    again.arrive()
    assert answers_of(server, "carla") == before + 1
    return again


def lose_connection_for_a_moment(carla) -> None:
    """The page sends the answer by itself when the connection is back."""
    prompt = carla.prompt()
    carla.page.context.set_offline(True)
    carla.page.locator("#save").click()
    carla.page.locator("#notice").get_by_text("Not saved yet").wait_for()
    carla.page.context.set_offline(False)
    carla.wait_for_another(prompt)
    assert carla.page.locator("#notice").is_hidden()


def command(*words) -> str:
    done = subprocess.run(
        ["bash", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rank_and_export(browser, tmp_path, prompts: int) -> Path:
    """From samples to a file of rankings, through three browsers."""
    run = tmp_path / "run"
    rankings = run / "annotate" / "rankings.jsonl"
    with serve(tmp_path, short_and_long(prompts)) as server:
        side_by_side(browser, server, prompts)
        samples = str(tmp_path / "samples.jsonl")
        main(AnnotateArguments(run=str(run), samples=samples, export=str(rankings)))  # beside it
    exported = read_json_lines(rankings)
    assert len(exported) == prompts
    for row in exported:
        by_length = sorted(range(5), key=lambda n: len(row["responses"][n]))
        assert row["labelers"] == NAMES and row["orders"] == [by_length] * 3
        assert row["revisions"] == [1, 1, 1] and min(row["seconds"]) > 0
    assert len({tuple(shown) for row in exported for shown in row["shown"]}) > prompts
    return rankings


def test_three_labelers_side_by_side(browser, tmp_path):
    rank_and_export(browser, tmp_path, prompts=4)


@pytest.mark.slow
def test_from_the_browser_to_a_reward_model(browser, tmp_path):
    """Twenty prompts, ranked side by side; export; pairs; a reward model that has learned them."""
    run = tmp_path / "run"
    rankings = rank_and_export(browser, tmp_path, prompts=20)
    shell = ["step2_reward/annotate.sh", "--run", run, "--samples", tmp_path / "samples.jsonl"]
    said = command(*shell, "--export", tmp_path / "again.jsonl")
    assert "20 prompts with 60 rankings" in said
    assert (tmp_path / "again.jsonl").read_text() == rankings.read_text()
    command("step2_reward/pairs.sh", "--run", run, "--rankings", rankings)
    pairs = read_json_lines(run / "pairs" / "pairs.jsonl")
    assert len(pairs) == 4 * 20
    assert all(len(pair["chosen"]) < len(pair["rejected"]) for pair in pairs)
    save_tiny(run / "models" / "sft")
    settings = {"learning_rate": 0.01, "epochs": 4, "batch_size": 8, "micro_batch_size": 8}
    settings |= {"eval_fraction": 0.25, "max_prompt_tokens": 200, "max_response_tokens": 60}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    finish(start("step2_reward/main.py", "--run", str(run), *words), seconds=300)
    assert (run / "models" / "reward" / "config.json").is_file()
    result = json.loads((run / "reward" / "result.json").read_text())
    assert result["accuracy"] > 0.8, result
