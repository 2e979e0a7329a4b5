"""Local files: recognised by content, split into sets and parts, refused with a reason."""

import json

import pytest

from common.errors import UserError
from common.evaluation.benchmarks.catalogue import CATALOGUE
from common.evaluation.benchmarks.choosing import Chosen, choose
from common.evaluation.benchmarks.local import Subset, load_local


@pytest.fixture
def put(tmp_path):
    """Writes a file below the data folder."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_text(content, encoding="utf-8")
        return path

    return write


def _parts(name, folder, key=None):
    found = load_local(name, folder)
    return {part: rows for part, rows in found[key or name].parts.items()}


def test_home_and_hub_forms_give_the_same_rows(tmp_path, makers):
    homes, hubs = tmp_path / "home", tmp_path / "hub"
    for make in makers.values():
        make(homes, True)
        make(hubs, False)
    for name in CATALOGUE:
        if name in ("agieval", "agieval_zh"):  # the hub has no examples, but questions alone
            continue
        home, hub = load_local(name, homes), load_local(name, hubs)
        assert set(home) == set(hub) and home
        for key in home:
            mine, theirs = home[key].parts, hub[key].parts
            asked = next(part for part in CATALOGUE[name].asked if mine.get(part))
            others = next(part for part in CATALOGUE[name].asked if theirs.get(part))
            assert mine[asked] == theirs[others], (name, key)


def test_agieval_of_the_hub_is_taken_apart_into_question_and_options(tmp_path, makers):
    makers["agieval"](tmp_path / "home", True)
    makers["agieval"](tmp_path / "hub", False)
    for name in ("agieval", "agieval_zh"):
        home, hub = load_local(name, tmp_path / "home"), load_local(name, tmp_path / "hub")
        for key in home:
            assert hub[key].parts["test"] == home[key].parts["fewshot"] + home[key].parts[""]


def test_content_counts_and_not_the_name(put, tmp_path):
    rows = [{"question": f"q{i}?", "answer": f"Two. #### {i}"} for i in range(3)]
    put("gsm8k/a.txt", rows)  # JSON lines
    put("gsm8k/b.jsonl", json.dumps([{"question": "list?", "answer": "#### 7"}]))
    put("gsm8k/c.json", json.dumps({"question": "one?", "answer": "#### 8"}))
    put("gsm8k/d.csv", 'question,answer\n"comma, and\nline?","#### 9"\n')
    put("gsm8k/e.tsv", "question\tanswer\ntab?\t#### 10\n")
    put("gsm8k/f", json.dumps({"question": ["columns?"], "answer": ["#### 11"]}))
    put("gsm8k/g.txt", "question,answer\nno suffix?,#### 12\n")
    put("gsm8k/README.md", "about")
    put("gsm8k/LICENSE", "terms")
    asked = [row["question"] for row in _parts("gsm8k", tmp_path)[""]]
    lines = ["q0?", "q1?", "q2?", "list?", "one?", "comma, and\nline?", "tab?"]
    assert asked == [*lines, "columns?", "no suffix?"]


def test_a_table_row_with_other_columns_than_its_head_is_named(put, tmp_path):
    put("gsm8k/a.csv", "question,answer\nfine?,#### 1\nonly a question?\n")
    with pytest.raises(UserError, match=r"row 2.*1 columns under a head of 2"):
        load_local("gsm8k", tmp_path)


def test_one_document_may_hold_several_parts(put, tmp_path):
    rows = {part: [{"text": f"some {part} word"}] for part in ("train", "test")}
    put("lambada/all.json", json.dumps(rows))
    assert _parts("lambada", tmp_path) == rows


def test_parquet_whatever_its_name(tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "ai2_arc").mkdir()
    choices = [{"text": ["x", "y"], "label": ["A", "B"]}]
    table = {"id": ["1"], "question": ["Why?"], "choices": choices, "answerKey": ["B"]}
    path = tmp_path / "ai2_arc" / "challenge.json"
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    row = {"question": "Why?", "choices": choices[0], "answerKey": "B"}
    assert _parts("arc_c", tmp_path) == {"": [row]}
    assert load_local("arc_e", tmp_path) == {}


def test_parts_come_from_the_nearest_name_or_a_column(put, tmp_path):
    row = {"question": "q?", "answer": ["a"]}
    put("nq/train/dev.jsonl", [row | {"question": "in dev"}])
    put("nq/validation/part-0.jsonl", [row | {"question": "in validation"}])
    put("nq/all.jsonl", [row | {"question": "by column", "split": "train"}])
    put("nq/NQ-open.efficientqa.dev.1.1.jsonl", [row | {"question": "another set"}])
    parts = _parts("nq", tmp_path)
    names = {part: [row["question"] for row in rows] for part, rows in parts.items()}
    expected = {"dev": ["in dev"], "validation": ["in validation"], "train": ["by column"]}
    assert names == expected


@pytest.mark.parametrize(
    ("name", "file", "content", "words"),
    [
        ("gsm8k", "gsm8k/x.jsonl", [{"text": "hello there"}], ["row 1", "####", "'text'"]),
        ("gsm8k", "gsm8k/x.jsonl", [{"question": "q", "answer": "many"}], ["####"]),
        ("gsm8k", "gsm8k/x.jsonl", '{"question": "q", "ans', ["line 1", "JSON"]),
        ("gsm8k", "gsm8k/x.jsonl", "", ["no rows"]),
        ("gsm8k", "gsm8k/LICENSE", "", ["no data file", "question, answer"]),
        ("mmlu", "mmlu/test/anatomy.csv", "a,b,c,d,A\n", ["without header", "four choices"]),
        ("mmlu", "mmlu/test/a.csv", "q,w,x,y,z,B\n", ["which set", "abstract_algebra"]),
        ("hellaswag", "hellaswag/val.jsonl", [{"ctx": "c", "label": 9}], ["row 1", "endings"]),
        ("winogrande", "winogrande/dev.jsonl", [{"sentence": "no blank"}], ["option1"]),
        ("race_h", "race/test/1.txt", '{"article": "a"}', ["questions", "middle"]),
        ("math", "math/test/1.json", '{"problem": "p"}', ["solution"]),
        ("lambada", "lambada/test.jsonl", [{"sentence": "s"}], ["a column text"]),
        ("webqs", "webqs/test.json", "[1, 2]", ["targetValue"]),
        ("agieval", "agieval/data/lsat-ar.jsonl", [{"question": "q"}], ["few_shot_prompts"]),
        ("bbh", "bbh/cot-prompts/navigate.txt", "nothing", ["cot-prompts"]),
        ("arc_e", "arc/test.jsonl", [{"question": "q", "choices": ["a"], "answer": 0}], ["easy"]),
    ],
)
def test_a_file_of_no_known_form_is_refused_with_what_was_expected(
    put, tmp_path, name, file, content, words
):
    path = put(file, content)
    with pytest.raises(UserError) as error:
        load_local(name, tmp_path)
    place = path.parent if file.endswith("LICENSE") else path
    assert str(place) in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_mmlu_csv_without_header_and_its_auxiliary_training(put, tmp_path):
    put("mmlu/data/test/virology_test.csv", 'What?,a,"b, c",c,d,C\n')
    put("mmlu/data/dev/virology_dev.csv", "Which?,a,b,c,d,A\n")
    put("mmlu/data/auxiliary_train/mc_test.csv", "Aux?,a,b,c,d,A\n")
    found = load_local("mmlu", tmp_path)
    assert list(found) == ["virology"]
    assert found["virology"].parts["test"] == [
        {
            "question": "What?",
            "subject": "virology",
            "choices": ["a", "b, c", "c", "d"],
            "answer": 2,
        }
    ]
    assert set(found["virology"].parts) == {"test", "dev"}


def test_race_folders_for_one_level_need_no_level_in_names(put, tmp_path):
    passage = {"article": "a", "questions": ["q?"], "options": [["w", "x"]], "answers": ["B"]}
    put("race_m/test/1.txt", json.dumps(passage))
    assert [row["answer"] for row in _parts("race_m", tmp_path)["test"]] == ["B"]
    assert load_local("race_h", tmp_path) is None


def test_winogrande_labels_belong_to_the_rows_of_their_part(put, tmp_path):
    row = {"option1": "cat", "option2": "dog"}
    put("winogrande/train_xs.jsonl", [row | {"sentence": "_ one", "answer": "1"}])
    put(
        "winogrande/train_s.jsonl",
        [row | {"sentence": f"_ {w}", "answer": "1"} for w in ("one", "two")],
    )
    put("winogrande/dev.jsonl", [row | {"sentence": f"_ {i}"} for i in range(2)])
    put("winogrande/dev-labels.lst", "2\n1\n")
    put("winogrande/test.jsonl", [row | {"sentence": "_ unknown"}])
    found = load_local("winogrande", tmp_path)["winogrande"]
    assert [row["answer"] for row in found.parts["dev"]] == ["2", "1"]
    assert [row["sentence"] for row in found.parts["train"]] == ["_ one", "_ two"]
    assert found.unlabeled == 1 and "test" not in found.parts


def test_hellaswag_context_in_one_text_is_taken_apart(put, tmp_path):
    context = "Washing: A man stands. He waits. then he"
    put("hellaswag/val.jsonl", [{"ctx": context, "label": "1", "endings": ["a", "b"]}])
    (row,) = _parts("hellaswag", tmp_path)["validation"]
    assert (row["activity_label"], row["ctx_a"], row["ctx_b"]) == (
        "Washing",
        "A man stands. He waits.",
        "then he",
    )


def test_agieval_options_lose_their_labels_however_they_are_written(put, tmp_path):
    def ask(number, options, label="B"):
        return {"question": f"q{number}", "options": options, "label": label, "passage": None}

    rows = [
        ask(0, ["(A)one", "(B)(1)(2)"]),
        ask(1, ["  A．eins", "B. zwei"]),
        ask(2, ["A 没有", "B 有"]),
        ask(3, ["A. 阳台\tB. 客厅\r\nC. 卧室"]),
        ask(4, ["(A)A man", "(C)B man"], ["B", "A", "。"]),
    ]
    put("agieval/logiqa-zh.jsonl", rows + [ask(5, ["(A)x", "(B)y"], [])])
    found = load_local("agieval_zh", tmp_path)["logiqa-zh"]
    assert [row["options"] for row in found.parts[""]] == [
        ["one", "(1)(2)"],
        ["eins", "zwei"],
        ["没有", "有"],
        ["阳台", "客厅", "卧室"],
        ["A man", "B man"],
    ]
    assert [row["labels"] for row in found.parts[""]] == ["B", "B", "B", "B", "AB"]
    assert found.unlabeled == 1


def test_webquestions_descriptions(put, tmp_path):
    targets = {
        '(list (description "Padmé \\"P\\" Amidala") (description Jamaica (x)))': [
            'Padmé "P" Amidala'
        ],
        "(list (description New Zealand) (description 1984))": ["New Zealand", "1984"],
        "(list )": None,
    }
    rows = [{"utterance": f"q{i}", "targetValue": target} for i, target in enumerate(targets)]
    put("webqs/test.json", json.dumps(rows))
    found = load_local("webqs", tmp_path)["webqs"]
    assert [row["answers"] for row in found.parts["test"]] == [a for a in targets.values() if a]
    assert found.unlabeled == 1


def _subset(**parts):
    return Subset(parts={part.strip("_"): rows for part, rows in parts.items()})


def _rows(*names):
    return [{"question": name} for name in names]


def test_examples_never_come_from_what_is_asked():
    arc, mmlu = CATALOGUE["arc_e"], CATALOGUE["mmlu"]
    chosen = choose(arc, _subset(test=_rows("a", "b"), train=_rows("c", "d")), [], 1, 0)
    assert (chosen.asked, chosen.shown) == (_rows("a", "b"), _rows("c"))
    assert "examples from its part 'train'" in chosen.source("here")

    both = _subset(test=_rows("a", "b"), fewshot=_rows("b", "c"), train=_rows("d"))
    chosen = choose(arc, both, [], 1, 0)
    assert (chosen.asked, chosen.shown) == (_rows("a"), _rows("b"))
    assert "1 questions left out" in chosen.source("here")

    alone = choose(arc, _subset(_=_rows("a", "b", "c")), [], 1, 0)
    assert (alone.asked, alone.shown) == (_rows("b", "c"), _rows("a"))
    assert "first 1 rows" in alone.source("here")

    hellaswag = choose(CATALOGUE["hellaswag"], _subset(validation=_rows("a", "b")), [], 1, 0)
    assert (hellaswag.asked, hellaswag.shown) == (_rows("b"), _rows("a"))

    single = choose(arc, _subset(_=_rows("a")), [], 1, 0)
    assert (single.asked, single.shown, single.remarks) == (
        _rows("a"),
        [],
        ["only 0 examples are there"],
    )

    chosen = choose(mmlu, _subset(test=_rows("t"), validation=_rows("v"), dev=_rows("d")), [], 5, 0)
    assert (chosen.asked, chosen.shown) == (_rows("t"), _rows("d"))
    assert "only 1 examples" in chosen.source("here")


def test_an_example_whose_answer_is_told_otherwise_is_not_asked_either():
    bbh = CATALOGUE["bbh"]
    shown = [{"input": "not True is", "target": "It is False. So the answer is False."}]
    asked = [{"input": text, "target": "False"} for text in ("not True is", "False is")]
    for standard, parts in ((shown, {}), ([], {"fewshot": shown})):
        chosen = choose(bbh, _subset(test=asked, **parts), standard, 3, 0)
        assert chosen.asked == asked[1:] and chosen.shown == shown
    twice = choose(CATALOGUE["arc_e"], _subset(_=_rows("a", "a", "b")), [], 1, 0)
    assert (twice.asked, twice.shown) == (_rows("b"), _rows("a"))


def test_standard_examples_come_before_the_train_part_but_not_before_the_authors():
    gsm8k = CATALOGUE["gsm8k"]
    parts = {"test": _rows("t"), "train": _rows("a", "b")}
    assert choose(gsm8k, _subset(**parts), _rows("s"), 1, 0).shown == _rows("s")
    parts["fewshot"] = _rows("f")
    assert choose(gsm8k, _subset(**parts), _rows("s"), 1, 0).shown == _rows("f")


def test_the_seed_draws_examples_and_zero_takes_the_first():
    rows = _rows(*"abcdefgh")
    drawn = [
        choose(CATALOGUE["nq"], _subset(dev=_rows("q"), train=rows), [], 3, seed).shown
        for seed in (0, 1, 1, 2)
    ]
    assert drawn[0] == rows[:3]
    assert drawn[1] == drawn[2] != drawn[3]


def test_labeled_parts_only_are_asked_and_nothing_is_said_so():
    hellaswag = CATALOGUE["hellaswag"]
    chosen = choose(hellaswag, _subset(validation=_rows("v"), train=_rows("t")), [], 1, 0)
    assert isinstance(chosen, Chosen) and chosen.asked == _rows("v")
    assert choose(hellaswag, _subset(test=[]), [], 1, 0).startswith("no questions")
    assert "no question is left" in choose(
        hellaswag, _subset(validation=_rows("v"), train=_rows("v")), [], 1, 0
    )
