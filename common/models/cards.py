"""The model card that lies in every saved folder."""

from collections.abc import Mapping
from typing import Any


def model_card(title: str, stage: str, settings: Mapping[str, Any]) -> str:
    """Markdown for a folder's README.md: what the model is, and the settings that made it."""
    rows = "\n".join(f"| {name} | `{value}` |" for name, value in settings.items())
    return (
        f"---\nlibrary_name: transformers\ntags: [rlhf, {stage}]\n---\n\n# {title}\n\n"
        f"Made by stage `{stage}` of an RLHF pipeline after the ICE-GRT paper.\n\n"
        f"| setting | value |\n| --- | --- |\n{rows}\n"
    )
