"""The last stage: SFT, RLHF and others answer held-out prompts, sampled and greedily."""

from collections import Counter
from pathlib import Path

from common.config.arguments import (
    ModelArguments,
    RunArguments,
    SamplingArguments,
    TextArguments,
    ZeroArguments,
)
from common.data.encoding import EncodedPrompt, describe, encode_prompts
from common.data.layouts import read_prompts
from common.data.sources import parse_sources
from common.data.template import Template
from common.errors import UserError
from common.evaluation.answering import (
    EvaluationArguments,
    answer,
    reward_scorer,
    token_models,
)
from common.evaluation.contenders import contenders, keep_best, kl_bound
from common.evaluation.judged import Judged
from common.evaluation.policy import mean_of
from common.evaluation.tokens import TokenScorer, read_training
from common.files import write_json_lines
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.loading import check_model_folder, load_causal_lm, load_tokenizer
from common.models.policy import PolicyModel
from common.training.distributed import is_main
from common.training.engine import build_frozen
from common.training.metrics import progress_bar
from common.training.once_per_node import once_per_node
from common.training.resume.arguments import CheckpointArguments
from common.training.run import run_stage
from common.training.seeding import derive_seed
from common.training.stage import Stage
from common.training.watchdog import WATCHDOG
from common.zero.config import resolve_dtype

ARGUMENTS = (
    RunArguments,
    EvaluationArguments,
    ModelArguments,
    TextArguments,
    SamplingArguments,
    RolloutArguments,
    ZeroArguments,
    CheckpointArguments,
)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(
    stage: Stage,
    run: RunArguments,
    settings: EvaluationArguments,
    model_settings: ModelArguments,
    text: TextArguments,
    sampling: SamplingArguments,
    rollout: RolloutArguments,
    zero: ZeroArguments,
    saving: CheckpointArguments,
) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    compared = contenders(
        settings.sft or str(stage.models / "sft"),
        settings.rlhf or str(stage.models / "actor"),
        settings.further,
        settings.samples,
        settings.best_of,
    )
    sources = parse_sources(settings.data)
    reward = settings.reward or str(stage.models / "reward")
    for contender in compared:
        check_model_folder(contender.path)
    if settings.best_of and not settings.reward and not Path(reward).exists():
        raise UserError(
            f"best_of chooses by a reward model, but {reward} is not there: set reward, or "
            "--best_of 0"
        )
    scored = token_models(stage, settings, model_settings, compared)
    inputs = dict.fromkeys([*(c.path for c in compared), *scored.values(), reward])
    stage.begin([*inputs, *(s.path for s in sources)])
    names = [s.name for s in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two splits are named '{name}'; give each source its own `name`")
    splits = once_per_node(lambda: {s.name: read_prompts([s]) for s in sources})
    numbers = {id(r): n for records in splits.values() for n, r in enumerate(records)}
    answered: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    dtype, spread = resolve_dtype(model_settings.dtype), stage.resolve_zero(zero)
    judged = Judged()
    encoded: dict[str, dict[int, EncodedPrompt]] = {}  # by the tokenizer of SFT and RLHF
    total = len(splits) * sum(c.passes for c in compared) + len(scored)
    with (
        stage.checkpoints(saving, shared={"judged": judged}) as checkpoints,
        progress_bar(total, "evaluation", done=checkpoints.restore(), shown=run.progress) as bar,
    ):
        done, step, loaded = checkpoints.step, 0, ""
        for contender in compared:
            path = contender.path
            tokenizer = load_tokenizer(path, trust_remote_code=model_settings.trust_remote_code)
            template = Template(tokenizer, text.template)
            if path != loaded and step + len(splits) * contender.passes > done:
                loaded, model, rollouts, scorer = path, None, None, None  # let the last ones go
                WATCHDOG.at(f"loading {path} for the evaluation")
                model = build_frozen(
                    PolicyModel(load_causal_lm(path, model_settings), model_settings.most_logits),
                    zero=spread,
                    dtype=dtype,
                )
                rollouts = HybridRollout.for_template(model, template, text, sampling, rollout)
                scorer = reward_scorer(stage, settings, model_settings, text, template, spread)
                judged.scale = scorer.scale if scorer else None
            for split, records in splits.items():
                prompts, counts = encode_prompts(records, template, text)
                prompts = prompts[: settings.limit or None]
                if split not in answered:  # the others are asked the same
                    encoded[split] = {numbers[id(p.record)]: p for p in prompts}
                    answered[split] = len(prompts)
                    left_out += counts
                for number in range(contender.passes):
                    step += 1
                    if step <= done:
                        continue
                    greedy = number == contender.samples
                    WATCHDOG.at(f"the evaluation of {contender.name} on {split}")
                    answers = answer(
                        rollouts,
                        prompts,
                        template,
                        scorer,
                        seed=derive_seed(run.seed, contender.purpose, split, number),
                        greedy=greedy,
                        check=number == 0,
                    )
                    for prompt, row in zip(prompts, answers, strict=True):
                        # Tokenizers differ in which prompts are too long, so a place is no name.
                        place = {"split": split, "index": numbers[id(prompt.record)]}
                        place["model"] = contender.name
                        place |= {"decoding": "greedy" if greedy else "sample"}
                        place["sample"] = 0 if greedy else number
                        judged.add(place, row, settings.token_prompts if scored else 0)
                    bar.update()
                    checkpoints.after(step, {}, last=step == total)
        model, rollouts, scorer = None, None, None
        training = read_training(stage.root, compared[0].path, reward)
        tokenizer = load_tokenizer(
            compared[0].path, trust_remote_code=model_settings.trust_remote_code
        )
        template = Template(tokenizer, text.template)
        score = TokenScorer(
            scored,
            model_settings,
            spread,
            sampling.generation_batch_size,
            training.temperature if training else sampling.temperature,
        )
        for name in scored:
            step += 1
            if step <= done:
                continue
            judged.token_scores[name] = score(name, judged.scored, encoded, tokenizer.pad_token_id)
            bar.update()
            checkpoints.after(step, {}, last=step == total)
    rows = keep_best(judged.rows, f"best_of_{settings.best_of}")
    if is_main():
        write_json_lines(stage.folder / "responses.jsonl", rows)
        write_json_lines(stage.folder / "tokens.jsonl", judged.token_rows(template, training))
    means = {
        f"{c.name}_{key}": mean_of([r for r in rows if r["model"] == c.name], key)
        for c in compared
        for key in ("overall", "reward")
    }
    stage.finish(
        {
            "prompts": answered,
            "samples": settings.samples,
            "left_out": dict(left_out),
            **means,
            **({"best_of_kl_bound": kl_bound(settings.best_of)} if settings.best_of else {}),
        },
        ", ".join(filter(None, [f"{len(rows)} responses judged", describe(left_out)]))
        + f", in {stage.folder / 'responses.jsonl'}",
        outputs=[stage.folder / "responses.jsonl", stage.folder / "tokens.jsonl"],
        checkpoints=checkpoints,
    )


if __name__ == "__main__":
    run_stage("evaluation", ARGUMENTS, main)
