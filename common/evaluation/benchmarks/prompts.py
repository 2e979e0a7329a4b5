"""Prompts of mode "fathom", and how their answers are read and compared.

All prompts are plain text: a sentence of instruction, the worked examples, the question. Where a
letter is wanted the prompt asks for it and names the letters (the paper's low HellaSwag and
WinoGrande scores are answers without one). GPT-Fathom's wording is not copied.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.evaluation.benchmarks import parsing
from common.evaluation.benchmarks.catalogue import AGIEVAL_CHINESE, AGIEVAL_CLOZE
from common.evaluation.benchmarks.equivalence import same_expression
from common.evaluation.benchmarks.files import Row
from common.evaluation.benchmarks.parsing import LETTERS


@dataclass(frozen=True)
class Prompt:
    """How a benchmark is asked.

    Attributes:
        description: stands before the examples; "" for nothing.
        question: row -> the question up to where its answer begins.
        shown: row -> the answer in a worked example, with the delimiter before it.
        targets: row -> the accepted answers.
        read: (output, row) -> the answer in it, None where there is none.
        same: (answer, targets) -> whether it is one of them.
        stops: what ends an answer, because the next question begins.
        score_f1: whether the words in common are scored, too.
    """

    description: str
    question: Callable[[Row], str]
    shown: Callable[[Row], str]
    targets: Callable[[Row], list[str]]
    read: Callable[[str, Row], str | None]
    same: Callable[[str, Sequence[str]], bool]
    stops: tuple[str, ...]
    score_f1: bool = False

    def answer_in(self, output: str, row: Row) -> str | None:
        """The answer that an output gives, before it goes on with questions of its own."""
        for stop in self.stops:
            output = output.split(stop)[0]
        return self.read(output, row)


def prompt_of(name: str, subtask: str, description: str = "", several: bool = False) -> Prompt:
    """The prompt of a benchmark's part.

    Args:
        name: a key of `CATALOGUE`.
        subtask: one of its `subtasks`, or its own name.
        description: BBH's sentence on the task.
        several: whether questions of this part may have several right choices (AGIEval).
    """
    match name:
        case "mmlu":
            subject = subtask.replace("_", " ")
            return _letters(
                f"The following are multiple choice questions (with answers) about {subject}.",
                lambda row: _choices(f"Question: {row['question'].strip()}", row["choices"]),
                lambda row: LETTERS[row["answer"]],
                lambda row: len(row["choices"]),
            )
        case "arc_e" | "arc_c":
            return _letters(
                "Answer each science question with the letter of the right choice.",
                lambda row: _choices(f"Question: {row['question']}", row["choices"]["text"]),
                lambda row: LETTERS[row["choices"]["label"].index(row["answerKey"])],
                lambda row: len(row["choices"]["text"]),
            )
        case "hellaswag":
            return _letters(
                "Choose the best continuation of each text. Answer with its letter alone: A, B, C "
                "or D.",
                lambda row: _choices(_hellaswag_text(row), map(_plain_how_to, row["endings"])),
                lambda row: LETTERS[int(row["label"])],
                lambda row: len(row["endings"]),
            )
        case "winogrande":
            return _letters(
                'Choose what belongs in place of "_" in each sentence. Answer with its letter '
                "alone: A or B.",
                lambda row: _choices(
                    f"Sentence: {row['sentence']}", (row["option1"], row["option2"])
                ),
                lambda row: "AB"[int(row["answer"]) - 1],
                lambda row: 2,
            )
        case "race_m" | "race_h":
            return _letters(
                "Read each article and answer the question on it with the letter of the right "
                "choice alone: A, B, C or D.",
                lambda row: _choices(
                    f"Article: {row['article'].strip()}\n\nQuestion: {row['question'].strip()}",
                    row["options"],
                ),
                lambda row: row["answer"],
                lambda row: len(row["options"]),
                ("\nArticle:",),
            )
        case "agieval" | "agieval_zh":
            if subtask in AGIEVAL_CLOZE:
                return _agieval_cloze(subtask in AGIEVAL_CHINESE)
            return _agieval_letters(subtask in AGIEVAL_CHINESE, several)
        case "bbh":
            return _bbh(description)
        case "gsm8k":
            return _gsm8k()
        case "math":
            return _math()
        case "nq" | "webqs":
            return _phrases("answer" if name == "nq" else "answers")
        case "lambada":
            return _lambada()
    raise ValueError(f"no prompt for {name!r}")


def _is_one_of(answer: str, targets: Sequence[str]) -> bool:
    return answer in targets


def _choices(question: str, choices: Sequence[str]) -> str:
    """The question, a line a choice with its letter, and where the answer begins."""
    lines = [f"{letter}. {text.strip()}" for letter, text in zip(LETTERS, choices, strict=False)]
    return "\n".join([question, *lines, "Answer:"])


def _letters(
    description: str,
    question: Callable[[Row], str],
    target: Callable[[Row], str],
    count: Callable[[Row], int],
    stops: tuple[str, ...] = ("\nQuestion:", "\nText:", "\nSentence:"),
) -> Prompt:
    """A question that one letter answers."""
    return Prompt(
        description=description,
        question=question,
        shown=lambda row: f" {target(row)}",
        targets=lambda row: [target(row)],
        read=lambda output, row: parsing.choice_letter(output, count(row)),
        same=_is_one_of,
        stops=stops,
    )


def _plain_how_to(text: str) -> str:
    """HellaSwag's texts from WikiHow without its marks "[header]", "[title]", "[step]"."""
    text = re.sub(r"\s*\[title\]", ".", text)
    return " ".join(re.sub(r"\[[^\]]*\]", "", text).split())


def _hellaswag_text(row: Row) -> str:
    label = f"{row['activity_label']}: " if row["activity_label"] else ""
    return f"Text: {label}{_plain_how_to(row['ctx'])}"


def _agieval_letters(chinese: bool, several: bool) -> Prompt:
    """AGIEval's choices: options in brackets, as in its own prompts."""

    def question(row: Row) -> str:
        passage = f"{row['passage'].strip()}\n" if row["passage"] else ""
        options = " ".join(f"({a}){t}" for a, t in zip(LETTERS, row["options"], strict=False))
        if chinese:
            return f"{passage}问题：{row['question']}\n选项：{options}\n答案："
        return f"{passage}Question: {row['question']}\nChoices: {options}\nAnswer:"

    read = parsing.choice_letters if several else parsing.choice_letter
    many = "one or more choices are right" if several else "one choice is right"
    many_zh = "每题有一个或多个正确选项" if several else "每题有一个正确选项"
    return Prompt(
        description=f"回答下列单项或多项选择题，{many_zh}，只回答选项字母。"
        if chinese
        else f"Answer the following exam questions; {many}. Answer with letters alone.",
        question=question,
        shown=lambda row: row["labels"] if chinese else f" {row['labels']}",
        targets=lambda row: [row["labels"]],
        read=lambda output, row: read(output, len(row["options"])),
        same=_is_one_of,
        stops=("\n问题：",) if chinese else ("\nQuestion:",),
    )


def _agieval_cloze(chinese: bool) -> Prompt:
    """AGIEval's `math` and `gaokao-mathcloze`: an expression, without reasoning before it."""
    ask, reply = ("问题：", "答案：") if chinese else ("Question: ", "Answer:")
    space = "" if chinese else " "
    return Prompt(
        description="回答下列填空题，只写出答案。"
        if chinese
        else "Answer the following questions with the final expression alone.",
        question=lambda row: f"{ask}{row['question']}\n{reply}",
        shown=lambda row: f"{space}{_in_dollars(row['answer'])}",
        targets=lambda row: [row["answer"]],
        read=lambda output, row: parsing.short_expression(output),
        same=lambda answer, targets: any(same_expression(answer, t) for t in targets),
        stops=(f"\n{ask.strip()}",),
    )


def _in_dollars(text: str) -> str:
    return text if "$" in text else f"${text}$"


_STEPS = "\nA: Let's think step by step.\n"


def _bbh(description: str) -> Prompt:
    """BBH: the task's examples, each with a chain of thought."""
    return Prompt(
        description=description,
        question=lambda row: f"Q: {row['input']}{_STEPS}",
        shown=lambda row: row["target"],
        targets=lambda row: [row["target"]],
        read=lambda output, row: parsing.told_answer(output),
        same=lambda answer, targets: any(parsing.same_told(answer, t) for t in targets),
        stops=("\nQ:",),
    )


def _gsm8k() -> Prompt:
    """GSM8K: the usual eight chains of thought, or solutions of its train part."""

    def shown(row: Row) -> str:
        chain = row.get("target") or row["answer"]
        chain = chain.strip().removeprefix("Let's think step by step").lstrip(". \n")
        chain = re.sub(r"<<.*?>>", "", chain)
        return re.sub(r"\n?####\s*(\S+)", r"\nThe answer is \1.", chain)

    return Prompt(
        description="",
        question=lambda row: f"Q: {row['question'].strip()}{_STEPS}",
        shown=shown,
        targets=lambda row: [parsing.gold_number(row["answer"]) or ""],
        read=lambda output, row: parsing.number(output),
        same=_is_one_of,
        stops=("\nQ:", "\nQuestion:"),
    )


def _math() -> Prompt:
    return Prompt(
        description=r"Solve each problem. Put the final answer in \boxed{}.",
        question=lambda row: f"Problem:\n{row['problem']}\n\nSolution:",
        shown=lambda row: f" {row['solution']}",
        targets=lambda row: [parsing.boxed(row["solution"]) or ""],
        read=lambda output, row: parsing.expression(output),
        same=lambda answer, targets: any(same_expression(answer, t) for t in targets),
        stops=("\nProblem:",),
    )


def _phrases(column: str) -> Prompt:
    """Questions that a phrase answers; the first accepted answer is shown in examples."""
    return Prompt(
        description="Answer each question with a short phrase.",
        question=lambda row: f"Q: {row['question'].strip().rstrip('?')}?\nA:",
        shown=lambda row: f" {row[column][0]}",
        targets=lambda row: row[column],
        read=lambda output, row: parsing.phrase(output),
        same=lambda answer, targets: any(
            parsing.normalized_phrase(answer) == parsing.normalized_phrase(t) for t in targets
        ),
        stops=("\nQ:",),
        score_f1=True,
    )


def _lambada() -> Prompt:
    return Prompt(
        description="Complete each text with the one word that is missing at its end.",
        question=lambda row: row["text"].rsplit(None, 1)[0],
        shown=lambda row: f" {row['text'].rsplit(None, 1)[1]}",
        targets=lambda row: [parsing.first_word(row["text"].rsplit(None, 1)[1]) or ""],
        read=lambda output, row: parsing.first_word(output),
        same=_is_one_of,
        stops=(),
    )
