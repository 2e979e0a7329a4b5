"""A benchmark's rows, in whatever published form, under the columns of its data set on the hub.

Each function takes one row as a file has it, and gives it with the hub's columns: itself, where it
has them, or converted from the form in which the benchmark's home repository (or GPT-Fathom's)
ships it. None says that the row is in neither form; `UNLABELED` that its right answer is not told,
as in the test parts of HellaSwag and WinoGrande.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.evaluation.benchmarks.files import Row
from common.evaluation.benchmarks.parsing import LETTERS, boxed, first_word, gold_number

UNLABELED: Row = {}


@dataclass(frozen=True)
class Form:
    """How rows of a benchmark are recognised.

    Attributes:
        convert: row -> row (RACE: rows) under the hub's columns, None, or `UNLABELED`.
        expected: both forms in words, for errors.
    """

    convert: Callable[[Row], Row | list[Row] | None]
    expected: str


def _index(label: Any, count: int) -> int | None:  # noqa: ANN401
    """Index of a right answer given as index, letter or text of a number; None where it is none."""
    if isinstance(label, bool):
        return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, str):
        label = label.strip()
        if len(label) == 1 and label.upper() in LETTERS:
            label = LETTERS.index(label.upper())
        elif label.isdigit():
            label = int(label)
    return label if isinstance(label, int) and 0 <= label < count else None


def _texts(value: Any) -> list[str] | None:  # noqa: ANN401
    """A list of texts, or None."""
    good = isinstance(value, list) and value and all(isinstance(text, str) for text in value)
    return list(value) if good else None


def _strings(row: Row, *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


def mmlu(row: Row) -> Row | None:
    """`question`, `subject`, `choices`, `answer` (0 to 3)."""
    cells = row.get("cells")
    if cells is not None:
        if len(cells) != 6:
            return None
        row = {"question": cells[0], "choices": list(cells[1:5]), "answer": cells[5]}
    elif {"A", "B", "C", "D"} <= set(row):
        text = row.get("question", row.get("input"))
        answer = row.get("answer", row.get("target"))
        choices = [str(row[letter]) for letter in "ABCD"]
        row = row | {"question": text, "choices": choices, "answer": answer}
    choices = _texts(row.get("choices"))
    if choices is None or len(choices) != 4 or not _strings(row, "question"):
        return None
    answer = _index(row.get("answer"), 4)
    if answer is None:
        return None
    subject = str(row.get("subject") or "")
    return {
        "question": row["question"],
        "subject": subject,
        "choices": choices,
        "answer": answer,
    }


def agieval(row: Row) -> Row | None:
    """`passage`, `question`, `options`, `labels` (letters), `answer` (of those without options).

    The hub's rows are finished prompts, `query` with `choices` and `gold`: these become a question
    with options, too.
    """
    if _strings(row, "query") and ("gold" in row or "answer" in row):
        return _agieval_of_the_hub(row)
    if not _strings(row, "question") or "options" not in row or not {"label", "answer"} & set(row):
        return None
    options = row["options"]
    common = {"passage": row.get("passage") or "", "question": row["question"].strip()}
    if not options:
        answer = row.get("answer") or ""
        return (
            common | {"options": [], "labels": "", "answer": str(answer)} if answer else UNLABELED
        )
    options = _options(options)
    if options is None:
        return None
    told = row.get("label")
    letters = "".join(told) if isinstance(told, list) else str(told or "")
    labels = "".join(sorted(set(re.sub(r"[^A-Z]", "", letters.upper()))))
    if not labels or max(labels) > LETTERS[len(options) - 1]:
        return UNLABELED
    return common | {"options": options, "labels": labels, "answer": ""}


def _agieval_of_the_hub(row: Row) -> Row | None:
    text = re.sub(
        r"\n(?:A: Among A through|答案：从A到).*$|\n(?:A: The answer is|答案：)\s*$",
        "",
        row["query"],
    )
    passage, mark, question = text.rpartition("Q: ") if "Q: " in text else text.rpartition("问题：")
    question = re.split(r"\s(?:Answer Choices: |选项：)\(?A", question)[0] if mark else text
    common = {"passage": passage.strip(), "question": question.strip()}
    if "gold" not in row:
        answer = row["answer"]
        whole = common | {"options": [], "labels": "", "answer": str(answer)}
        return UNLABELED if answer in (None, "") else whole
    options, gold = _options(row.get("choices")), row["gold"]
    if options is None:
        return None
    gold = [_index(label, len(options)) for label in (gold if isinstance(gold, list) else [gold])]
    if not gold or None in gold:
        return UNLABELED
    labels = "".join(sorted(LETTERS[label] for label in set(gold)))
    return common | {"options": options, "labels": labels, "answer": ""}


def _options(value: Any) -> list[str] | None:  # noqa: ANN401
    """Options without their labels: "(A)", "A. ", "A．"; in one text, they are told apart first."""
    options = _texts(value)
    if options is None:
        return None
    if len(options) == 1:
        parts = re.split(r"(?:^|\s)\(?([A-H])[.．)）、]\s*", options[0].strip())
        options = [text.strip() for text in parts[2::2]] or options
    bare = all(re.match(rf"\s*{LETTERS[i]}\s", text) for i, text in enumerate(options))
    label = r"\s*(?:[(（][A-H][)）]|[A-H][.．、:：)）]" + (r"|[A-H]\s" if bare else "") + r")\s*"
    return [re.sub(rf"^{label}", "", text).strip() for text in options]


def bbh(row: Row) -> Row | None:
    """`input`, `target`."""
    if not _strings(row, "input") or "target" not in row:
        return None
    return {"input": row["input"], "target": str(row["target"])}


def arc(row: Row) -> Row | None:
    """`question`, `choices` with `text` and `label`, `answerKey`."""
    question, choices = row.get("question"), row.get("choices")
    key = row.get("answerKey", row.get("AnswerKey"))
    if isinstance(question, dict):  # the home repository's
        question, choices = question.get("stem"), question.get("choices")
    if isinstance(question, str) and choices is None and key is not None:  # its CSV
        question, *parts = re.split(r"\s\(([A-E1-5])\)\s", question)
        choices = [{"label": a, "text": b} for a, b in zip(parts[::2], parts[1::2], strict=False)]
    if isinstance(choices, list) and choices and all(isinstance(c, dict) for c in choices):
        choices = {name: [str(c.get(name, "")) for c in choices] for name in ("text", "label")}
    plain = _texts(choices)
    if plain is not None and "answer" in row:  # GPT-Fathom's
        answer = _index(row["answer"], len(plain))
        if answer is None:
            return None
        choices, key = {"text": plain, "label": list(LETTERS[: len(plain)])}, LETTERS[answer]
    if not isinstance(question, str) or not isinstance(choices, dict):
        return None
    texts, labels = _texts(choices.get("text")), _texts(choices.get("label"))
    if texts is None or labels is None or len(texts) != len(labels):
        return None
    if not key:
        return UNLABELED
    if str(key) not in labels:
        return None
    return {
        "question": question,
        "choices": {"text": texts, "label": labels},
        "answerKey": str(key),
    }


def hellaswag(row: Row) -> Row | None:
    """`activity_label`, `ctx_a`, `ctx_b`, `ctx`, `endings`, `label` (as text)."""
    endings = _texts(row.get("endings"))
    if endings is None or "label" not in row:
        return None
    if row["label"] in ("", None):
        return UNLABELED
    label = _index(row["label"], len(endings))
    if label is None:
        return None
    if _strings(row, "ctx_a", "activity_label"):
        activity, first, then = row["activity_label"], row["ctx_a"], row.get("ctx_b") or ""
        context = row.get("ctx") or f"{first} {then}".strip()
    elif _strings(row, "ctx"):  # one text: "activity: context begun sent"
        activity, mark, context = row["ctx"].partition(": ")
        activity, context = (activity, context) if mark else ("", row["ctx"])
        begun = re.fullmatch(r"(.*[.!?]) ([a-z][^.!?\[\]]*)", context, flags=re.DOTALL)
        first, then = begun.groups() if begun else (context, "")
    else:
        return None
    return {
        "activity_label": activity,
        "ctx_a": first,
        "ctx_b": then,
        "ctx": context,
        "endings": endings,
        "label": str(label),
    }


def winogrande(row: Row) -> Row | None:
    """`sentence` with one "_", `option1`, `option2`, `answer` ("1" or "2")."""
    if not _strings(row, "sentence", "option1", "option2") or "_" not in row["sentence"]:
        return None
    answer = str(row.get("answer") or "").strip()
    if answer not in ("1", "2"):
        return UNLABELED if not answer else None
    return {name: row[name] for name in ("sentence", "option1", "option2")} | {"answer": answer}


def race(row: Row) -> list[Row] | None:
    """Of one passage or question, a row a question.

    `example_id`, `article`, `question`, `options`, `answer` (a letter).
    """
    if not _strings(row, "article"):
        return None
    common = {
        "example_id": str(row.get("example_id", row.get("id", ""))),
        "article": row["article"],
    }
    problems = row.get("problems")
    if isinstance(problems, str):
        try:
            problems = ast.literal_eval(problems)
        except (ValueError, SyntaxError):
            return None
    if problems is None and isinstance(row.get("questions"), list):
        lists = [row.get(name) for name in ("questions", "options", "answers")]
        if any(not isinstance(x, list) or len(x) != len(lists[0]) for x in lists):
            return None
        names = ("question", "options", "answer")
        problems = [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]
    rows = []
    for problem in problems if problems is not None else [row]:
        options = _texts(problem.get("options"))
        if options is None or not _strings(problem, "question", "answer"):
            return None
        answer = _index(problem["answer"], len(options))
        if answer is None:
            return None
        rows.append(
            common
            | {"question": problem["question"], "options": options, "answer": LETTERS[answer]}
        )
    return rows


def gsm8k(row: Row) -> Row | None:
    """`question`, `answer`, a solution with "#### 18" or "The answer is 18" at its end."""
    if not _strings(row, "question") or "answer" not in row:
        return None
    answer = str(row["answer"])
    told = re.search(r"####\s*\S|[Tt]he answer is|^\s*-?[$\d][\d,.]*\s*$", answer)
    known = told and gold_number(answer) is not None
    return {"question": row["question"], "answer": answer} if known else None


def math(row: Row) -> Row | None:
    r"""`problem`, `level`, `type`, `solution`, which has its result in a \boxed{}."""
    if not _strings(row, "problem", "solution"):
        return None
    if boxed(row["solution"]) is None:
        return UNLABELED
    return {
        "problem": row["problem"],
        "level": str(row.get("level", "")),
        "type": str(row.get("type") or row.get("subject") or ""),
        "solution": row["solution"],
    }


def nq(row: Row) -> Row | None:
    """`question`, `answer` (a list of accepted ones)."""
    cells = row.get("cells")
    if cells is not None and len(cells) == 2:
        try:
            row = {"question": cells[0], "answer": ast.literal_eval(cells[1])}
        except (ValueError, SyntaxError):
            return None
    answer = row.get("answer", row.get("answers"))
    if answer == [] and _strings(row, "question"):
        return UNLABELED
    answers = [answer] if isinstance(answer, str) else _texts(answer)
    if not _strings(row, "question") or not answers:
        return None
    return {"question": row["question"], "answer": answers}


def webqs(row: Row) -> Row | None:
    """`question`, `answers` (accepted ones); at home `utterance` and `targetValue`."""
    question = row.get("question", row.get("utterance", row.get("qText")))
    answers = row.get("answers", row.get("answer"))
    if answers is None and isinstance(row.get("targetValue"), str):
        answers = _descriptions(row["targetValue"])
    if answers == [] and isinstance(question, str):
        return UNLABELED
    answers = [answers] if isinstance(answers, str) else _texts(answers)
    if not isinstance(question, str) or not answers:
        return None
    return {"question": question, "answers": answers}


def _descriptions(value: str) -> list[str]:
    """Of `(list (description "Padmé Amidala") (description Jamaica))`, the descriptions."""
    quoted = re.findall(r'\(description\s+(?:"((?:[^"\\]|\\.)*)"|([^()"]+?))\s*\)', value)
    return [re.sub(r"\\(.)", r"\1", a) if a else b.strip() for a, b in quoted]


def lambada(row: Row) -> Row | None:
    """`text`, whose last word is asked."""
    if not _strings(row, "text") or len(row["text"].split()) < 2:
        return None
    text = row["text"].strip()
    return {"text": text} if first_word(text.rsplit(None, 1)[1]) else UNLABELED


FORMS: dict[str, Form] = {
    "mmlu": Form(
        mmlu,
        "columns question, choices (4), answer (0-3 or A-D), and subject where no name tells it; "
        "or a CSV without header: question, four choices, letter",
    ),
    "agieval": Form(
        agieval,
        "columns passage, question, options, label, answer (AGIEval's repository), or query, "
        "choices, gold, or query, answer (hub); or few_shot_prompts.csv; the set's name in the "
        "file's or folder's name",
    ),
    "bbh": Form(
        bbh,
        "an object with examples of input and target, or columns input, target; the examples of "
        "cot-prompts as text; the task's name in the file's or folder's name",
    ),
    "arc": Form(
        arc,
        "columns question, choices (text and label), answerKey (hub), or question with stem and "
        "choices, answerKey (ARC's repository), or question, choices, answer (0-3); 'easy' or "
        "'challenge' in a name",
    ),
    "hellaswag": Form(
        hellaswag,
        "columns ctx_a, ctx_b, activity_label, endings, label, or ctx, endings, label",
    ),
    "winogrande": Form(
        winogrande,
        "columns sentence (with _), option1, option2, answer (1 or 2); or without answer, and "
        "these one a line in a .lst beside it",
    ),
    "race": Form(
        race,
        "columns article, question, options, answer (hub); or of a passage article, questions, "
        "options, answers (RACE's repository); 'middle' or 'high' in a name or id",
    ),
    "gsm8k": Form(
        gsm8k,
        "columns question, answer, whose end is '#### 18' or 'The answer is 18'",
    ),
    "math": Form(
        math,
        r"columns problem, solution (with \boxed{}), level, type; the subject in type or a name",
    ),
    "nq": Form(nq, "columns question, answer (list of accepted ones)"),
    "webqs": Form(webqs, "columns question, answers, or utterance, targetValue (home form)"),
    "lambada": Form(lambada, "a column text, or plain text with a passage a line"),
}
"""Family of benchmarks -> its forms; RACE's gives a list of rows for each."""
