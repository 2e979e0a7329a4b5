"""What comes out of a project: the figures of the project page, and the export."""

import json
import random

import pytest

from common.data.layouts import read_rankings
from common.data.sources import DataSource
from common.files import write_json_lines
from step2_reward.annotation.export import split_rows
from step2_reward.annotation.summary import Summary
from tests.step2_reward.annotation.projects import LENGTHS, by_length, save


def test_export_is_what_readers_of_rankings_take(make, tmp_path):
    project = make(count=3, per_prompt=2)
    orders = {"anna": {}, "ben": {}}
    for labeler in orders:
        for i in range(3):
            page = project.next_page(labeler)
            order = by_length(page)
            if labeler == "ben" and i == 0:  # the two shortest are alike to ben
                order = [order[0] + order[1], *order[2:]]
            cannot = labeler == "anna" and i == 1 or i == 2
            rated = [{"clarity": len(text) % 3} for text in page["responses"]]
            save(
                project,
                labeler,
                page,
                [] if cannot else order,
                cannot_judge=cannot,
                ratings=[] if cannot else rated,
                comment="no idea" if cannot else "",
            )
    ranked, unranked = split_rows(project)
    assert [r["labelers"] for r in ranked] == [["anna", "ben"], ["ben"]]
    assert ranked[0]["orders"] == [[0, 1, 2, 3, 4], [[0, 1], 2, 3, 4]]
    assert ranked[0]["ratings"][0] == [{"clarity": len(t) % 3} for t in LENGTHS]
    assert ranked[0]["model"] == "m" and ranked[0]["seconds"] == [12.5, 12.5]
    for labeler, shown in zip(ranked[0]["labelers"], ranked[0]["shown"], strict=True):
        page = project.page_again(labeler, project.samples[0].key)
        assert page["responses"] == [LENGTHS[number] for number in shown]
    assert [c["labeler"] for c in ranked[1]["cannot_judge"]] == ["anna"]
    assert [c["comment"] for c in unranked[0]["cannot_judge"]] == ["no idea", "no idea"]
    write_json_lines(tmp_path / "rankings.jsonl", ranked)
    read = read_rankings([DataSource(str(tmp_path / "rankings.jsonl"))])
    assert [r.ranks for r in read] == [
        ((1, 2, 3, 4, 5), (1.5, 1.5, 3, 4, 5)),
        ((1, 2, 3, 4, 5),),
    ]


def test_figures(make, clock):
    project = make(count=4, per_prompt=3)
    for labeler in ("anna", "ben", "carla"):
        for i in range(2):
            page = project.next_page(labeler)
            order = by_length(page)
            contrary = labeler == "carla" and i == 1
            save(project, labeler, page, order[::-1] if contrary else order, seconds=30 + 30 * i)
    figures = Summary(project, ["anna", "ben", "carla", "dmitri"]).figures(clock.now)
    assert (figures["complete"], figures["answers"], figures["wanted"]) == (2, 6, 12)
    # Two agree and one is contrary: rank sums 7, 8, 9, 10, 11, so S = 10 of 90 at most.
    assert figures["mean_w"] == pytest.approx((1 + 1 / 9) / 2)
    assert figures["histogram"] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    anna, _, carla, dmitri = figures["labelers"]
    assert anna["tau"] == pytest.approx((1 + 1 + 1 - 1) / 4)
    assert carla["tau"] == pytest.approx((1 + 1 - 1 - 1) / 4)
    assert anna["median_seconds"] == 45 and anna["per_hour"] == pytest.approx(80)
    assert dmitri["answers"] == 0 and dmitri["tau"] is None and dmitri["per_hour"] is None
    (worst,) = figures["disagreed"]
    assert worst["w"] == pytest.approx(1 / 9)
    assert worst["ranks"]["carla"] == [5, 4, 3, 2, 1]
    json.dumps(figures, allow_nan=False)
    clock.now += 2 * 86400  # a correction does not make the first day's work less
    save(project, "anna", project.page_again("anna", worst["key"]))
    later = Summary(project, ["anna"]).figures(clock.now)
    assert later["days"] == figures["days"] and later["labelers"][0]["last"] == clock.now


def test_figures_are_the_same_whether_looked_at_often_or_once(make, clock):
    """Through corrections, and answers that are withdrawn by \"can't judge\" and given again."""
    project = make(count=3, gold=2, per_prompt=3, gold_every=2)
    names, draws = ["anna", "ben", "carla"], random.Random(0)
    often = Summary(project, names)
    for turn in range(60):
        clock.now += 9000
        labeler = draws.choice(names)
        earlier = project.mine(labeler)["answers"]
        page = None if earlier and draws.random() < 0.6 else project.next_page(labeler)
        page = page or project.page_again(labeler, draws.choice(earlier)["key"])
        order = draws.sample(by_length(page), 5)
        unable = draws.random() < 0.2
        save(project, labeler, page, [] if unable else order, cannot_judge=unable, seconds=turn)
        assert often.figures(clock.now) == Summary(project, names).figures(clock.now)
    assert often.figures(clock.now)["corrected"] > 5


def test_figures_of_a_project_that_has_not_begun(make, clock):
    figures = Summary(make(), ["anna"]).figures(clock.now)
    assert figures["alpha"] is None and figures["mean_w"] is None and not figures["disagreed"]
