"""The model card that lies in every saved folder, written from the run's own facts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 200
"""Characters of a value in a table."""

LIBRARY = {True: "peft", False: "transformers"}
HOLDS = {True: "Adapters: load them with PEFT on their base.", False: "Whole weights."}
"""By whether the folder holds adapters."""


@dataclass(frozen=True)
class Card:
    """What a stage knows of a model that it made."""

    title: str
    kind: str
    """One sentence: what the model is, and what it was made from."""
    stage: str
    settings: Mapping[str, Any]
    """All of them, resolved."""
    data: Sequence[str]
    """Files or hub names that it was trained on."""
    results: Mapping[str, Any]
    """The stage's figures, as they stand in its result."""
    limits: Sequence[str]
    """What the figures do not show, a sentence each."""
    base: str | None = None
    """Hub name or folder of the model that it started from."""

    def text(self, *, adapters: bool) -> str:
        """Markdown for a folder's README.md."""
        base = self.base if self.base and is_hub_name(self.base) else None
        front = [f"library_name: {LIBRARY[adapters]}", f"tags: [rlhf, {self.stage}]"]
        front += [f"base_model: {base}"] * bool(base)
        parts = [
            "---\n" + "\n".join(front) + "\n---",
            f"# {self.title}",
            f"{self.kind} Made by stage `{self.stage}` of an RLHF pipeline after the ICE-GRT "
            f"paper. {HOLDS[adapters]}",
            "## Data",
            "\n".join(f"- `{name}`" for name in self.data) or "None.",
            "## Results",
            table("figure", self.results),
            "## Limits",
            "\n".join(f"- {limit}" for limit in self.limits),
            "## Settings",
            table("setting", self.settings),
        ]
        return "\n\n".join(parts) + "\n"


def table(heading: str, values: Mapping[str, Any]) -> str:
    """A Markdown table of names and values; long lists and nested figures are cut short."""
    rows = "\n".join(f"| {name} | `{shown(value)}` |" for name, value in values.items())
    return f"| {heading} | value |\n| --- | --- |\n{rows}"


def shown(value: Any) -> str:
    """A value on one line of a table."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def is_hub_name(name: str) -> bool:
    """Whether a name is one that the hub would take for a model, `owner/name`, and no folder."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()
