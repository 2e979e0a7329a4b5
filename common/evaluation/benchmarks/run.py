"""The benchmarks of the paper's Table 1: models answer them, and stand in one table.

Started by `launch/evaluate.sh`. Each part of a benchmark (`BenchmarkTask`) is on the disk as soon
as it is done; the same command goes on with what is missing.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from common.config.arguments import (
    ModelArguments,
    RunArguments,
    SamplingArguments,
    ZeroArguments,
    check_range,
    option,
)
from common.config.parsing import fill_placeholders
from common.errors import UserError
from common.evaluation.benchmarks import table
from common.evaluation.benchmarks.context import Context
from common.evaluation.benchmarks.selection import (
    check_known,
    chosen_benchmarks,
    folders_of,
)
from common.evaluation.benchmarks.storage import Answers, Row, names_of
from common.evaluation.benchmarks.tasks import BenchmarkTask, build_tasks
from common.files import write_json, write_text
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.kinds import check_policy
from common.models.loading import load_causal_lm, load_tokenizer
from common.models.policy import PolicyModel
from common.training.distributed import any_rank, broadcast_object, is_main
from common.training.engine import build_frozen
from common.training.metrics import progress_bar
from common.training.resume.identity import PIECES, content_hashes, movable
from common.training.resume.signals import REQUESTS, Stopped
from common.training.run import run_stage
from common.training.stage import Stage
from common.training.watchdog import WATCHDOG
from common.zero.config import resolve_dtype


@dataclass
class BenchmarkArguments:
    """Which models are asked what, and how."""

    HARMLESS: ClassVar = ("batch_size",)

    models: list[str] = option(
        [], "model folders or hub names; by default RUN/models/sft and RUN/models/actor"
    )
    suite: Literal["table1", "ablation", "all"] = option(
        "table1", "the paper's Table 1; Natural Questions, Web Questions and LAMBADA; or both"
    )
    benchmarks: list[str] = option([], "these alone, by their short names, instead of a suite")
    mode: Literal["fathom", "harness"] = option(
        "fathom",
        "fathom: greedy generation and parsing, as the paper has it; harness: "
        "lm-evaluation-harness's own definitions",
    )
    benchmark_data: str = option(
        "", "folder with a folder a benchmark; by default the hub's data sets are downloaded"
    )
    limit: int = option(0, "the first so many questions of each part; 0 takes all")
    subtasks: int = option(0, "the first so many parts of each benchmark; 0 takes all")
    batch_size: int = option(32, "prompts or choices that are worked on at a time, on each rank")

    def __post_init__(self) -> None:
        check_range(self, 0, "limit", "subtasks")
        check_range(self, 1, "batch_size")
        check_known(self.benchmarks)


ARGUMENTS = (RunArguments, BenchmarkArguments, ModelArguments, RolloutArguments, ZeroArguments)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(
    stage: Stage,
    run: RunArguments,
    settings: BenchmarkArguments,
    model_settings: ModelArguments,
    rollout: RolloutArguments,
    zero: ZeroArguments,
) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    chosen = chosen_benchmarks(settings.suite, settings.benchmarks)
    models = settings.models or ["{run}/models/sft", "{run}/models/actor"]
    paths = names_of(fill_placeholders(models, run.run))
    if not settings.models and not any(map(os.path.exists, paths.values())):
        raise UserError(
            f"no model is named, and there is no {' or '.join(paths.values())}: name models, or "
            "give --run with a run that has some"
        )
    for path in paths.values():
        check_policy(path)
    data = Path(settings.benchmark_data) if settings.benchmark_data else None
    stage.begin([*paths.values(), *folders_of(data, chosen)])
    spread = stage.resolve_zero(zero)
    hashes = content_hashes(list(paths.values()), stage.root) if is_main() else {}
    asked: dict[str, list[tuple[BenchmarkTask, list[Row]]]] = {}
    left_out: list[str] = []
    contexts: dict[str, int] = {}
    WATCHDOG.start(run.step_timeout)
    with progress_bar(len(paths), "benchmarks", shown=run.progress) as bar:
        for name, path in paths.items():
            WATCHDOG.at(f"preparing the benchmarks for {name}")
            tokenizer = load_tokenizer(path, trust_remote_code=model_settings.trust_remote_code)
            context = Context.of_folder(path, tokenizer, model_settings)
            parts, missing = build_tasks(
                chosen,
                settings.mode,
                data,
                fits=context.fits,
                subtasks=settings.subtasks,
                seed=run.seed,
            )
            left_out += [line for line in missing if line not in left_out]
            if not parts:
                raise UserError("no benchmark is left to run: " + "; ".join(missing))
            if not asked:
                bar.reset(total=len(paths) * len(parts))
            content = hashes.get(str(movable(path, stage.root)), "")
            facts = answers_of(path, content, settings, model_settings, rollout)
            facts |= {"context": context.length, "seed": run.seed}
            contexts[name] = context.length
            answers = Answers(stage.folder / PIECES / name, facts)
            model, asked[name] = None, []
            for part in parts:
                WATCHDOG.at(f"{part.benchmark} {part.subtask} of {name}")
                bar.set_postfix_str(f"{name}, {part.benchmark} {part.subtask}", refresh=False)
                rows = known_rows(answers, part) if is_main() else None
                if not broadcast_object(rows is not None):
                    if any_rank(REQUESTS.asked()):
                        raise Stopped
                    from common.evaluation.benchmarks.asking import ask

                    model = model or load(
                        path, tokenizer, settings, model_settings, rollout, spread
                    )
                    rows = ask(part, model, settings.limit)
                    if is_main():
                        answers.write(part, rows)
                asked[name].append((part, rows or []))
                bar.update()
    if is_main():
        found = table.results(
            {name: table.cells(parts) for name, parts in asked.items()},
            chosen,
            settings.mode,
            left_out,
            settings.limit,
            settings.subtasks,
            contexts,
        )
        write_json(stage.folder / "benchmarks.json", found)
        write_text(stage.folder / "benchmarks.md", table.markdown(found))
        print(f"\n{table.terminal(found)}\n", flush=True)
    finish(stage, asked, left_out)


def known_rows(answers: Answers, part: BenchmarkTask) -> list[Row] | None:
    """A part's answers of an earlier command, read as this one would; None: to be asked."""
    from common.evaluation.benchmarks.asking import read_again

    kept = answers.read(part)
    rows = kept and read_again(part, kept)
    if rows and rows != kept:
        answers.write(part, rows)
    return rows


def answers_of(
    path: str,
    content: str,
    settings: BenchmarkArguments,
    model_settings: ModelArguments,
    rollout: RolloutArguments,
) -> dict[str, Any]:
    """What a model's answers depend on; those of anything else are not taken for them.

    Args:
        content: a hash of the model, or "hub" for one that is not on this disk.
    """
    return {
        "model": path if content == "hub" else content,
        "limit": settings.limit,
        "dtype": model_settings.dtype,
        "base_4bit": model_settings.base_4bit,
        "rollout": rollout.rollout,
    }


def load(
    path: str,
    tokenizer: Any,
    settings: BenchmarkArguments,
    model_settings: ModelArguments,
    rollout: RolloutArguments,
    zero: ZeroArguments,
) -> Any:
    """A model that answers. A collective."""
    from common.evaluation.benchmarks.model import DEFAULT_TOKENS, PolicyLM

    WATCHDOG.at(f"loading {path} for the benchmarks")
    model = build_frozen(
        PolicyModel(load_causal_lm(path, model_settings), model_settings.most_logits),
        zero=zero,
        dtype=resolve_dtype(model_settings.dtype),
    )
    rollouts = HybridRollout(
        model,
        SamplingArguments(),
        rollout,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        max_new_tokens=DEFAULT_TOKENS,
    )
    return PolicyLM(rollouts, tokenizer, settings.batch_size)


def finish(stage: Stage, asked: dict[str, Any], left_out: list[str]) -> None:
    """Marks the stage as done."""
    questions = sum(len(rows) for parts in asked.values() for _, rows in parts)
    outputs = [stage.folder / "benchmarks.json", stage.folder / "benchmarks.md"]
    stage.finish(
        {"models": list(asked), "questions": questions, "left_out": left_out},
        f"{questions} questions, in {outputs[1]}",
        outputs=[*outputs, stage.folder / PIECES],
    )


if __name__ == "__main__":
    run_stage("benchmarks", ARGUMENTS, main)
