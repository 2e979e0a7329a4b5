"""Worked examples that a benchmark's authors chose: BBH's and AGIEval's files, MATH's four."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.evaluation.benchmarks.files import RawFile, Row
from common.evaluation.benchmarks.forms import agieval


@dataclass(frozen=True)
class CotPrompt:
    """A task's sentence of description, and its examples as rows of `input` and `target`."""

    description: str
    rows: list[Row]


def cot_prompt(text: str) -> CotPrompt | None:
    """Reads one of BBH's `cot-prompts/*.txt`: a description, then "Q: …", "A: Let's think …".

    An example's `target` is its whole chain of thought, which ends in "So the answer is …".
    """
    body = text.split("\n-----\n", 1)[-1]  # what is above it asks not to train on the data
    description, *examples = re.split(r"(?:^|\n)Q: ", body)
    rows = []
    for example in examples:
        question, mark, chain = example.partition("\nA: Let's think step by step.")
        if not mark:
            return None
        rows.append({"input": question.strip(), "target": chain.strip()})
    return CotPrompt(description.strip(), rows) if rows else None


def is_few_shot_table(file: RawFile) -> bool:
    """Whether a file is AGIEval's `few_shot_prompts.csv`: "sample 1" begins its first row."""
    first = next(iter(file.rows[0].values()), None) if file.layout == "table" else None
    return isinstance(first, str) and bool(re.match(r"sample\s*\d", first, re.IGNORECASE))


def few_shot_table(file: RawFile) -> dict[str, list[Row]]:
    """AGIEval's `few_shot_prompts.csv`: set -> its three to five examples, without explanations.

    The set without passages shares the examples of `sat-en`, and so it is in AGIEval's own code;
    here their passages are left out, too.

    Raises:
        UserError: a cell is no example.
    """
    found: dict[str, list[Row]] = {}
    for row in file.rows:
        (_, label), *cells = row.items()
        if not str(label).strip().lower().startswith("sample"):
            continue
        for name, cell in cells:
            if cell in ("", None):
                continue
            try:
                example = cell if isinstance(cell, dict) else ast.literal_eval(cell)
                converted = agieval(example)
            except (ValueError, SyntaxError, TypeError, AttributeError):
                converted = None
            if not converted:
                raise UserError(
                    f"{file.path}: column {name!r}: expected an example with question, options and "
                    f"label or answer, not {str(cell)[:60]!r}"
                )
            found.setdefault(name.strip(), []).append(converted)
    if "sat-en" in found and "sat-en-without-passage" not in found:
        bare = [row | {"passage": ""} for row in found["sat-en"]]
        found["sat-en-without-passage"] = bare
    return found


def minerva_examples() -> list[Row]:
    """The four examples of MATH that everybody shows (Minerva's), out of lm-evaluation-harness.

    They are read from its source, because the module refuses to be imported without one certain
    version of the antlr runtime.
    """
    import lm_eval.tasks

    path = Path(lm_eval.tasks.__file__).parent / "minerva_math" / "utils.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples":
            answer = next(part for part in node.body if isinstance(part, ast.Return))
            return ast.literal_eval(answer.value)
    raise UserError(f"{path}: no list of examples; install lm_eval 0.4.13")
