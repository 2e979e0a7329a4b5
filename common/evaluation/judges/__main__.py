"""What `launch/judge.sh` runs: `table`, `people` or `ai`, and then settings.

Each brings `RUN/evaluation/criteria.json` and `.md` up to date with all that has been judged.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config.arguments import option
from common.config.parsing import parse_arguments
from common.endpoint.judge import EndpointArguments
from common.errors import UserError
from common.evaluation.judges.ai import AiJudgeArguments, judge_by_ai, questions_about
from common.evaluation.judges.answers import questions_of
from common.evaluation.judges.arguments import AnswersArguments, TableArguments, weights_of
from common.evaluation.judges.judgements import (
    Judgement,
    folder_of,
    forget_judgements,
    title_of,
    write_judgement,
)
from common.evaluation.judges.people import prepare, project_of, read_back
from common.evaluation.judges.table import write_criteria
from common.evaluation.report import write_report
from common.evaluation.run_files import HOW_TO_EVALUATE
from common.files import take_lock
from common.training.ending import report, stop_at_once
from common.training.resume.signals import STOP_CODE, Stopped


@dataclass
class PeopleArguments:
    """What is there of people's work."""

    ratings: str = option("", "what the annotation pages exported; without it, their file is made")


def table(settings: TableArguments) -> None:
    """The table of all that has been judged, the embedded rubric's points included."""
    say_table(settings)


def people(settings: TableArguments, answers: AnswersArguments, work: PeopleArguments) -> None:
    """Makes the annotation pages' file; or reads their export back, and makes the table."""
    run = Path(settings.run)
    if work.ratings:
        judgements = read_back(run, Path(work.ratings))
        forget_judgements(run, ("people", "simulated"))  # of an export before
        for judgement in judgements:
            write_judgement(run, judgement)
            title = title_of(judgement.kind, judgement.name, judgement.labelers)
            say(f"{len(judgement.prompts)} prompts by {title}{_unrated(judgement)}")
        say_table(settings)
        return
    questions, note = questions_of(run, answers, settings.seed)
    say(note)
    samples = prepare(run, questions, answers.decoding, settings.seed)
    folder = project_of(run)
    say(f"{len(questions)} prompts, answers in a hidden order: {samples}")
    say("people rate them (who wrote what stands in key.json beside it; labelers must not see it):")
    export = folder / "ratings.jsonl"
    pages = ["bash", "step2_reward/annotate.sh", "--run", folder, "--samples", samples]
    for words in (
        [*pages, "--ask_ratings", "true", "--labelers", "NAME", "NAME", "NAME"],
        [*pages, "--export", export],
        ["bash", "launch/judge.sh", "people", "--run", run, "--ratings", export],
    ):
        say(f"  {shlex.join(map(str, words))}")


def _unrated(judgement: Judgement) -> str:
    """How many orders came without ratings, as the end of a line."""
    unrated, only = (
        judgement.facts[f"{whose}_without_ratings"] for whose in ("orders", "labelers")
    )
    if not unrated:
        return ""
    orders = sum(len(prompt.rankings) for prompt in judgement.prompts)
    who = f" ({only} labeler{'s' * (only != 1)} rated nothing)" if only else ""
    return f"; {unrated} of {orders} orders came without ratings{who}: they count as orders only"


def ai(
    settings: TableArguments,
    answers: AnswersArguments,
    judge: AiJudgeArguments,
    at: EndpointArguments,
) -> None:
    """Asks a language model, and makes the table; also of what there is when it ends early."""
    run = Path(settings.run)
    if not at.endpoint or not at.judge_model:
        raise UserError("an AI judge needs --endpoint and --judge_model")
    questions, note = questions_of(run, answers, settings.seed)
    say(note)
    most = sum(questions_about(question, compare=judge.compare) for question in questions)
    say(f"{len(questions)} prompts, {most} questions, of which the cache may know some")
    judgement, error = judge_by_ai(run, questions, answers.decoding, judge, at)
    facts = judgement.facts
    say(
        f"{len(judgement.prompts)} of {facts['asked']} prompts by {judgement.name}: "
        f"{facts['requests_of_all_ai_judges']} requests (failed ones too) and "
        f"{facts['tokens_of_all_ai_judges']} tokens so far, of all AI judges of this run"
    )
    say(f"left out: {facts['trouble']}" * bool(facts["trouble"]))
    say_table(settings)
    if error:
        raise error


COMMANDS = {
    "table": (table, (TableArguments,)),
    "people": (people, (TableArguments, AnswersArguments, PeopleArguments)),
    "ai": (ai, (TableArguments, AnswersArguments, AiJudgeArguments, EndpointArguments)),
}
"""Name -> the function and its settings, in the order of its parameters."""


def main(argv: Sequence[str]) -> None:
    """The command line.

    Raises:
        UserError: an unknown command or setting, or whatever the command raises.
    """
    if argv and argv[0] in ("-h", "--help"):
        say(f"{', '.join(COMMANDS)}; each has --help")
        return
    if not argv or argv[0] not in COMMANDS:
        given = f", not '{argv[0]}'" if argv else ""
        raise UserError(f"the first word must be one of {', '.join(COMMANDS)}{given}")
    command, types = COMMANDS[argv[0]]
    groups = parse_arguments(types, "judge", argv[1:])
    run = Path(groups[0].run)
    if not run.is_dir():
        raise UserError(f"{run}: there is no such folder; give that of a finished run (--run)")
    if not (run / "evaluation").is_dir():
        raise UserError(f"{run}: has no evaluation. {HOW_TO_EVALUATE}")
    folder_of(run).mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder_of(run) / ".lock")
    try:
        command(*groups)
    finally:
        lock.close()


def run(argv: Sequence[str]) -> int:
    """The command line as a process: its exit code, errors and signals told in a line."""
    stop_at_once()
    try:
        main(argv)
    except Stopped:
        say("stopped; the same command goes on")
        return STOP_CODE
    except Exception as error:
        return report("judge", error)
    return 0


def say_table(settings: TableArguments) -> None:
    """Writes the table, and the run's report that shows it, and says where they are."""
    name, weights = weights_of(settings.weights)
    path = write_criteria(Path(settings.run), name, weights, settings.seed)
    say(f"the eight criteria, {name} weights: {path}")
    try:
        say(f"the report with them: {write_report(Path(settings.run))[1]}")
    except UserError as error:  # of another stage's files
        say(f"no report: {error}")


def say(text: str) -> None:
    """One line on the terminal, unless it is empty."""
    if text:
        print(f"judge: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
