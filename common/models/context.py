"""How many tokens a model can see, held against how many it will be given."""

import warnings
from typing import Any

from torch import nn

from common.errors import UserError

LEARNED = ("wpe", "embed_positions", "position_embeddings")
"""What transformers' models call a table of positions (GPT-2 and GPT-Neo, OPT, BERT)."""


def learned_positions(model: nn.Module) -> int | None:
    """Tokens in the longest row that a model with a learned table of positions can be given.

    None where positions are worked out (rotary ones, ALiBi) or nobody says how many there are.

    Args:
        model: a Hugging Face model, or something around one.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rsplit(".", 1)[-1] in LEARNED:
            # Not the table's own length: OPT's has two rows more than it has positions.
            return next(
                (
                    m.config.max_position_embeddings
                    for m in model.modules()
                    if hasattr(getattr(m, "config", None), "max_position_embeddings")
                ),
                None,
            )
    return None


def check_context(model: Any, longest: int, name: str) -> None:
    """The longest row fits into what a model can see.

    Beyond the end of a learned table the first long row would end the run, in the middle of it;
    other models go on, on positions that they were not trained on.

    Args:
        model: a Hugging Face model.
        longest: tokens of the longest row that it is to read.
        name: what errors call it.

    Raises:
        UserError: rows may be longer than the model's table of positions.
    """
    seen = getattr(model.config, "max_position_embeddings", None)
    if seen is None or longest <= seen:
        return
    what = (
        f"{name} sees {seen} tokens, but rows may have {longest} "
        "(max_prompt_tokens, max_response_tokens)"
    )
    if learned_positions(model) is not None:
        raise UserError(f"{what}: lower these limits, or take a model that sees more")
    warnings.warn(f"{what}: it was not trained on the positions beyond", stacklevel=2)
