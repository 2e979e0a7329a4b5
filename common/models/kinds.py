"""What a model folder's model is: one that writes, one that scores, a critic."""

import json
from pathlib import Path

from common.errors import UserError
from common.models.loading import check_model_folder
from common.models.lora import adapter_base
from common.models.merge import kind_of


def kinds(path: str) -> tuple[str, ...]:
    """What a folder's model can be, by its config: "policy", "reward", "critic"; all if unknown."""
    if adapter_base(path):
        return (kind_of(path),)
    file = Path(path) / "config.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    names = " ".join(known.get("architectures") or ())
    if "ForSequenceClassification" in names:
        return ("reward",)
    if "ForTokenClassification" in names:
        return ("critic",)
    return ("policy",) if names else ("policy", "reward", "critic")


def check_policy(path: str, reward_option: str = "") -> None:
    """Refuses what is no language model: its head would be taken for missing, and drawn.

    Args:
        path: model folder or hub name.
        reward_option: of the command, by which a reward model would be welcome.

    Raises:
        UserError: no model folder, or another kind's.
    """
    check_model_folder(path)
    if "policy" not in kinds(path):
        kind = kinds(path)[0]
        wanted = f"use {reward_option} {path}" if kind == "reward" and reward_option else ""
        raise UserError(f"{path}: a {kind} model, which cannot talk; {wanted or 'name another'}")
