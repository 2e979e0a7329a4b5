"""The table: each cell from its rows, the paper's rows below, nothing without what it is."""

from types import SimpleNamespace

import pytest

from common.evaluation.benchmarks import table
from common.evaluation.benchmarks.scores import estimate, mean_of_parts


def part(benchmark, subtask, shots=5, source="local files, sha256 ab"):
    return SimpleNamespace(
        **{"benchmark": benchmark, "subtask": subtask, "mode": "fathom", "origin": "ours"},
        **{"shots": shots, "source": source},
    )


def row(score, **changes):
    return {"score": score, "unparsed": False, "shots_dropped": 0, "prompt_cut": False, **changes}


PARTS = [
    (part("mmlu", "anatomy"), [row(1.0), row(0.0, unparsed=True, shots_dropped=2)]),
    (part("mmlu", "virology", 4, "x"), [row(0.0, prompt_cut=True), row(0.0), row(1.0)]),
    (part("arc_e", "arc_e", 1), [row(1.0, shots_dropped=1)]),
]
PHRASES = [(part("nq", "nq", 1), [row(1.0, f1=1.0), row(0.0, f1=0.5)])]


@pytest.fixture
def found():
    return table.results(
        {"sft": table.cells(PARTS), "actor": table.cells(PARTS[2:])},
        ["mmlu", "arc_e", "nq"],
        "fathom",
        ["Natural Questions: no folder"],
        limit=3,
        subtasks=2,
        contexts={"sft": 16, "actor": 20},
    )


def test_a_cell_is_the_mean_over_parts_with_all_that_belongs_to_it():
    cell = table.cells(PARTS)["mmlu"]
    expected = mean_of_parts([estimate(1 / 2, 2), estimate(1 / 3, 3)])
    assert cell["score"] == pytest.approx(100 * (1 / 2 + 1 / 3) / 2, abs=0.01)
    assert (cell["low"], cell["high"]) == pytest.approx(
        (100 * expected.low, 100 * expected.high), abs=0.01
    )
    assert cell["n"] == 5 and cell["average"] == "parts" and cell["shots"] == "4–5"
    assert cell["shots_dropped"] == 1 and cell["prompts_cut"] == 1
    assert cell["unparsed"] == 1 / 5
    assert (
        cell["source"] == "local files, sha256 ab (and so on, 2 parts)" and cell["origin"] == "ours"
    )
    assert cell["parts"]["virology"]["score"] == 33.33 and cell["parts"]["virology"]["n"] == 3
    assert table.cells(PARTS)["arc_e"]["average"] == "questions"


def test_the_f1_of_phrases_is_told_beside_the_score():
    assert table.cells(PARTS)["arc_e"]["f1"] is None
    cells = table.cells(PHRASES)
    assert (cells["nq"]["score"], cells["nq"]["f1"]) == (50.0, 75.0)
    found = table.results({"sft": cells}, ["nq"], "fathom", [], 0, 0, {"sft": 4096})
    head, line = table.details(found)
    assert dict(zip(head, line, strict=True))["F1 %"] == "75.00"


def test_a_row_a_model_then_the_papers(found):
    head, sft, actor, *paper = table.grid(found)
    assert head == ["model", "MMLU", "ARC-E", "Natural Questions"]
    assert sft[0] == "sft" and sft[1].startswith("41.7 (") and sft[3] == "–"
    assert actor[:2] == ["actor", "–"]
    assert ["ICE-GRT 13B (paper)", "55.3", "87.6", "–"] in paper and len(paper) == 11
    assert all(line[0].endswith("(paper)") for line in paper)


def test_the_page_has_every_cells_facts_the_notes_and_what_is_missing(found):
    page = table.markdown(found)
    assert "| sft | MMLU | 41.67 |" in page and "| 4–5 | 1 | 1 | 20.0 % | – | ours |" in page
    assert "Natural Questions: no folder" in page
    assert "the first 3 questions of a part, the first 2 parts of a benchmark" in page
    assert "Mean over parts: MMLU." in page
    assert (
        "sft: its context is 16 tokens; answers had at most 8 of them in MMLU (of 10), ARC-E (of"
        in page
    )
    assert "actor: its context" not in page
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert {line.count(" | ") for line in lines} == {3, len(table.DETAILS) - 1}


def test_harness_numbers_are_said_not_to_be_comparable():
    found = table.results({"sft": {}}, ["arc_e"], "harness", [], limit=0, subtasks=0, contexts={})
    assert "not comparable with the paper's Table 1" in table.markdown(found)
    assert "A sample" not in table.markdown(found)


def test_the_terminal_table_is_cut_into_blocks_that_fit(found):
    whole = table.terminal(found, width=200).split("\n\n")[0].splitlines()
    assert len(whole) == 2 + 2 + 11
    blocks = table.terminal(found, width=50).split("\n\n")
    assert blocks[0].startswith("model") and blocks[1].startswith("model")
    assert "MMLU" in blocks[0] and "MMLU" not in blocks[1]
    table_lines = "\n".join(b for b in blocks if b.startswith("model")).splitlines()
    assert max(map(len, table_lines)) <= 50


def test_a_model_whose_answers_are_mostly_unreadable_is_named():
    rows = [row(0.0, unparsed=True), row(0.0, unparsed=True), row(1.0)]
    cut = [row(0.0, prompt_cut=True), row(1.0)]
    cells = table.cells([(part("arc_e", "arc_e"), rows), (part("arc_c", "arc_c"), cut)])
    assert list(table.mostly("sft", cells)) == [
        "sft: most answers could not be read: ARC-E 67%.",
        "sft: most prompts were too long, and lost their beginning: ARC-C 50%.",
    ]
    assert list(table.mostly("sft", table.cells(PARTS))) == []
