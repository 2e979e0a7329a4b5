"""Small data of all fifteen benchmarks, as their home repositories and as the hub ship it."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

LETTERS = "ABCDEFGH"


def _lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def _json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


class Fact:
    """What a model knows of one question.

    `marker` is text that only this question has; `says` and `wrong` are generated answers;
    `continuations` are likely behind a prompt that holds `likely_after`.
    """

    def __init__(self, marker, says, wrong, continuation, likely_after=None):
        self.marker, self.says, self.wrong = marker, says, wrong
        several = isinstance(continuation, set)
        self.continuations = continuation if several else {continuation}
        self.likely_after = likely_after or marker


def _letter(marker, gold, text, letters=True):
    """A choice: its letter in text; by likelihood its letter (MMLU) or its text."""
    wrong = LETTERS[(LETTERS.index(gold[0]) + 1) % 2]
    return Fact(marker, gold, wrong, gold if letters else text)


def _choices(tag):
    return [f"{tag} thing {letter}" for letter in "pqrs"]


def make_mmlu(folder, home):
    facts = []
    for subject in ("anatomy", "virology"):
        for part, count in (("dev", 5), ("test", 3)):
            rows = []
            for i in range(count):
                tag, gold = f"{subject} {part} {i}", i % 4
                rows.append((f"What is {tag} about?", _choices(tag), gold))
                facts.append(_letter(rows[-1][0], LETTERS[gold], None))
            if home:
                path = folder / "mmlu" / "data" / part / f"{subject}_{part}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([[q, *c, LETTERS[g]] for q, c, g in rows])
            else:
                names = ("question", "choices", "answer")
                rows = [dict(zip(names, r, strict=True)) | {"subject": subject} for r in rows]
                _lines(folder / "mmlu" / f"{part}-{subject}-00000.jsonl", rows)
    return facts


def make_agieval(folder, home):
    facts, columns = [], {}
    sets = {
        "lsat-ar": ("B", "E", "D"),
        "math": (r"\frac{3}{4}", "(1,2]", "17"),
        "gaokao-physics": (["A", "C"], "B", ["A", "D"]),
        "gaokao-mathcloze": ("$-\\frac{1}{7}$", "56", "8"),
    }
    for name, answers in sets.items():
        rows = {"fewshot": [], "test": []}
        for part in rows:
            for i, answer in enumerate(answers):
                cloze = name in ("math", "gaokao-mathcloze")
                tag = f"{name} {part} {i}"
                options = None if cloze else [f"({x}){tag} opt {x}" for x in "ABCDE"]
                row = {
                    "passage": f"Passage of {tag}." if i == 0 and not cloze else None,
                    "question": f"Which one is {tag}?",
                    "options": options,
                    "label": None if cloze else answer,
                    "answer": answer if cloze else None,
                    "other": None,
                }
                rows[part].append(row)
                gold = answer if isinstance(answer, str) else "".join(answer)
                wrong = "99" if cloze else "AB"[gold == "A"]
                text = answer if cloze else f"({gold[0]}){tag} opt {gold[0]}"
                if cloze and i == 0:  # another spelling of the same value
                    gold = {"math": "0.75", "gaokao-mathcloze": "-1/7"}[name]
                fact = Fact(row["question"], gold, wrong, text)
                fact.harness_says = f"The answer is ${answer.strip('$')}$" if cloze else None
                facts.append(fact)
        if home:
            _lines(folder / "agieval" / "data" / "v1" / f"{name}.jsonl", rows["test"])
            columns[name] = rows["fewshot"]
        else:
            hub = [_hub_agieval(row, name) for row in rows["fewshot"] + rows["test"]]
            _lines(folder / "agieval" / name / "test.jsonl", hub)
    if home:
        with (folder / "agieval" / "few_shot_prompts.csv").open("w", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["", *columns])
            for i in range(3):
                table.writerow([f"sample {i + 1}", *(repr(columns[name][i]) for name in columns)])
                table.writerow([f"explanation {i + 1}", *("Because." for _ in columns)])
    return facts


def _hub_agieval(row, name):
    passage, question = row["passage"] or "", row["question"]
    chinese = name.startswith("gaokao")
    if row["options"] is None:
        form = "{}问题：{}\n答案：" if chinese else "{}Q: {}\nA: The answer is"
        return {"query": form.format(passage, question), "answer": row["answer"]}
    form = (
        "{}问题：{} 选项：{}\n答案：从A到E, 我们应选择"
        if chinese
        else "{}Q: {} Answer Choices: {}\nA: Among A through E, the answer is"
    )
    gold = [LETTERS.index(x) for x in row["label"]]
    query = form.format(passage, question, " ".join(row["options"]))
    return {"query": query, "choices": row["options"], "gold": gold}


def make_bbh(folder, home):
    facts = []
    answers = {
        "navigate": ("Yes", "No", "Yes"),
        "date_understanding": ("(B)", "(A)", "(C)"),
        "dyck_languages": ("] ]", "} >", ")"),
    }
    for task, targets in answers.items():
        rows = [
            {"input": f"Consider {task} {i}.\nOptions:\n(A) x\n(B) y\n(C) z", "target": target}
            for i, target in enumerate(targets)
        ]
        for row, target in zip(rows, targets, strict=True):
            says = f"First, think.\nSo the answer is {target}."
            facts.append(Fact(row["input"], says, "So the answer is nothing of it.", None))
        shots = "\n\n".join(
            f"Q: Example {i} of {task}\nA: Let's think step by step.\nSo the answer is yes."
            for i in range(3)
        )
        if home:
            canary = {"canary": "leave it", "examples": rows}
            _json(folder / "bbh" / "bbh" / f"{task}.json", canary)
            head = f"Do not train on this.\n-----\nSolve {task}.\n\n"
            _text(folder / "bbh" / "cot-prompts" / f"{task}.txt", head + shots)
        else:
            _lines(folder / "bbh" / task / "test-00000-of-00001.jsonl", rows)
    return facts


def make_arc(folder, home):
    facts = []
    for level in ("Easy", "Challenge"):
        for part in ("Train", "Test"):
            rows = []
            for i in range(3):
                tag = f"{level} {part} {i}"
                labels = list("1234") if i == 1 else list("ABCD")
                choices = _choices(tag)
                row = {"id": tag, "question": f"Why {tag}?", "answerKey": labels[i]}
                if home:
                    options = [
                        {"text": t, "label": x} for t, x in zip(choices, labels, strict=True)
                    ]
                    row["question"] = {"stem": row["question"], "choices": options}
                else:
                    row["choices"] = {"text": choices, "label": labels}
                rows.append(row)
                facts.append(_letter(f"Why {tag}?", LETTERS[i], choices[i], letters=False))
            if home:
                _lines(folder / "ARC" / f"ARC-{level}" / f"ARC-{level}-{part}.jsonl", rows)
            else:
                _lines(folder / "ai2_arc" / f"ARC-{level}" / f"{part.lower()}-0.jsonl", rows)
    return facts


def make_hellaswag(folder, home):
    facts = []
    for part in ("train", "val"):
        rows = []
        for i in range(3):
            tag = f"swag {part} {i}"
            row = {
                "activity_label": "Doing",
                "ctx_a": f"Somebody does {tag}.",
                "ctx_b": "then she",
                "ctx": f"Somebody does {tag}. then she",
                "endings": [f"ends {tag} {x}" for x in "pqrs"],
                "label": i if home else str(i),
                "split": part,
            }
            rows.append(row)
            facts.append(_letter(f"does {tag}.", LETTERS[i], row["endings"][i], letters=False))
        name = f"hellaswag_{part}.jsonl" if home else f"{part}/0000.jsonl"
        _lines(folder / "hellaswag" / name, rows)
    unlabeled = [row | {"label": "", "split": "test"} for row in rows]
    _lines(folder / "hellaswag" / "hellaswag_test.jsonl", unlabeled)
    return facts


def make_winogrande(folder, home):
    facts = []
    for part in ("train_xl", "dev"):
        rows = []
        for i in range(3):
            tag = f"wino {part} {i}"
            answer = "12"[i % 2]
            row = {"sentence": f"In {tag} the _ won the prize {i}.", "answer": answer}
            row |= {"option1": "cat", "option2": "dog"}
            rows.append(row)
            right = row[f"option{answer}"]
            facts.append(
                Fact(
                    f"In {tag} the",
                    "AB"[i % 2],
                    "BA"[i % 2],
                    f"won the prize {i}.",
                    likely_after=f"In {tag} the {right}",
                )
            )
        base = folder / "winogrande"
        if home and part == "dev":
            bare = [{k: v for k, v in row.items() if k != "answer"} for row in rows]
            _lines(base / "dev.jsonl", bare)
            _text(base / "dev-labels.lst", "".join(f"{row['answer']}\n" for row in rows))
        else:
            _lines(base / (f"{part}.jsonl" if home else f"{part}/rows.jsonl"), rows)
    return facts


def make_race(folder, home):
    facts = []
    for level in ("middle", "high"):
        for part in ("dev", "test"):
            for i in range(2):
                tag = f"{level} {part} {i}"
                article = f"An article on {tag}."
                questions = [f"First of {tag}?", f"Last of {tag}?"]
                options = [_choices(f"{tag} {k}") for k in range(2)]
                answers = ["B", "CD"[i]]
                for q, o, a in zip(questions, options, answers, strict=True):
                    facts.append(_letter(q, a, o[LETTERS.index(a)], letters=False))
                base = folder / "race"
                if home:
                    row = {"answers": answers, "options": options, "questions": questions}
                    row |= {"article": article, "id": f"{level}{i}.txt"}
                    _json(base / part / level / f"{i}.txt", row)
                else:
                    rows = [
                        {"example_id": f"{level}{i}.txt", "article": article}
                        | {"question": q, "options": o, "answer": a}
                        for q, o, a in zip(questions, options, answers, strict=True)
                    ]
                    _lines(base / "all" / f"{part}-{level}-{i}.jsonl", rows)
    return facts


def make_gsm8k(folder, home):
    facts = []
    for part in ("train", "test"):
        rows = []
        for i, answer in enumerate(("18", "1,050", "-3")):
            question = f"How many are in {part} {i}?"
            rows.append({"question": question, "answer": f"Count <<1+1=2>>2.\n#### {answer}"})
            facts.append(Fact(question, f"Count.\nThe answer is {answer}.", "so 180", None))
        name = f"{part}.jsonl" if home else f"main/{part}-00000-of-00001.jsonl"
        _lines(folder / "gsm8k" / name, rows)
    return facts


def make_math(folder, home):
    facts = []
    for subject, title in (("algebra", "Algebra"), ("number_theory", "Number Theory")):
        for part in ("train", "test"):
            rows = []
            for i, answer in enumerate((r"\frac{1}{2}", "12", r"x^2+1")):
                problem = f"Solve {subject} {part} {i}."
                solution = rf"We get $\boxed{{{answer}}}$."
                row = {"problem": problem, "level": "Level 1", "solution": solution}
                rows.append(row | {"type": title})
                says = rf"So $\boxed{{{answer}}}$."
                facts.append(Fact(problem, says, r"So $\boxed{121}$.", None))
            if home:
                for i, row in enumerate(rows):
                    _json(folder / "MATH" / part / subject / f"{i}.json", row)
            else:
                _lines(folder / "hendrycks_math" / subject / f"{part}.jsonl", rows)
    return facts


def make_nq(folder, home):
    facts = []
    for part in ("train", "dev" if home else "validation"):
        rows = []
        for i in range(3):
            question = f"who is nq {part[0] == 't'} {i}"
            rows.append({"question": question, "answer": [f"Person{i}", f"The Person {i}"]})
            facts.append(Fact(question, f"Person{i}", f"Person{i}0", None))
        name = f"NQ-open.{part}.jsonl" if home else f"nq_open/{part}.jsonl"
        _lines(folder / "nq_open" / name, rows)
    return facts


def make_webqs(folder, home):
    facts = []
    for part in ("train", "test"):
        rows = []
        for i in range(3):
            question = f"where is webqs {part} {i}?"
            answers = [f"Town {i}", f"Big City {i}"]
            if home:
                target = f'(list (description "{answers[0]}") (description "{answers[1]}"))'
                rows.append({"url": "u", "utterance": question, "targetValue": target})
            else:
                rows.append({"url": "u", "question": question, "answers": answers})
            facts.append(Fact(question, answers[1], "Town", set(answers)))
        if home:
            _json(folder / "webquestions" / f"webquestions.examples.{part}.json", rows)
        else:
            _lines(folder / "web_questions" / f"{part}.jsonl", rows)
    return facts


def make_lambada(folder, home):
    facts, texts = [], []
    for i in range(3):
        start = f"Long story {i} ends with the word"
        texts.append(f"{start} word{i}")
        facts.append(Fact(start, f"word{i}", "wor", f"word{i}"))
    if home:
        _text(folder / "lambada" / "lambada_test_plain_text.txt", "\n".join(texts) + "\n")
    else:
        _lines(folder / "lambada" / "test.jsonl", [{"text": text} for text in texts])
    return facts


MAKERS = {
    "mmlu": make_mmlu,
    "agieval": make_agieval,
    "bbh": make_bbh,
    "arc": make_arc,
    "hellaswag": make_hellaswag,
    "winogrande": make_winogrande,
    "race": make_race,
    "gsm8k": make_gsm8k,
    "math": make_math,
    "nq": make_nq,
    "webqs": make_webqs,
    "lambada": make_lambada,
}


def make_all(folder, home):
    """Writes all benchmarks' files; gives every question's facts."""
    return [fact for make in MAKERS.values() for fact in make(folder, home)]


@pytest.fixture(scope="session", params=["home", "hub"])
def data(request, tmp_path_factory):
    """(folder, facts) in the home repositories' forms, then with the hub's columns."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, make_all(folder, home=request.param == "home")


@pytest.fixture(scope="session", name="makers")
def makers_fixture():
    """Benchmark folder -> function (folder, home) that writes its files and gives its facts."""
    return MAKERS


@pytest.fixture(scope="session")
def scripted():
    """The module of scripted models; it imports lm_eval, which takes seconds."""
    place = Path(__file__).with_name("scripted.py")
    spec = importlib.util.spec_from_file_location("scripted", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to open a connection fails the test."""
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError(f"network: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
