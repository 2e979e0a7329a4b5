"""The pipeline's first stage: writes the embedded domain's files into RUN/data."""

from dataclasses import dataclass

from common.config.arguments import RunArguments, option
from common.data.ad_moderation.splits import Sizes, write_splits
from common.training.run import run_stage
from common.training.stage import Stage


@dataclass
class DomainArguments:
    """Size of the embedded domain."""

    scale: float = option(1.0, "factor on the number of rows of every split")


ARGUMENTS = (RunArguments, DomainArguments)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: DomainArguments) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    stage.begin()
    counts = write_splits(stage.folder, seed=run.seed, sizes=Sizes().scaled(settings.scale))
    stage.finish(
        {"rows": counts},
        ", ".join(f"{count} {name}" for name, count in counts.items()) + " rows",
        outputs=[stage.folder / f"{name}.jsonl" for name in counts],
    )


if __name__ == "__main__":
    run_stage("data", ARGUMENTS, main, distributed=False)
