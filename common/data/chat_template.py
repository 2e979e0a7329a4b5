"""The paper's format as a chat template, saved with a model's tokenizer.

With it `transformers serve`, vLLM and `apply_chat_template` give a model the ids that it was
trained on. They render a conversation as one text and read that at once, special tokens included;
so what users write is defused inside the template: a blank parts "</" from "s>". And as they give
answers with the blank that stands before them, an earlier answer may begin with it, or not.
"""

import json
import sys
from pathlib import Path
from typing import Any

from common.data.records import Message
from common.data.template import FOLLOW_UP, RESPONSE_CUE, TEMPLATE_HEAD, Template
from common.errors import UserError
from common.training.distributed import is_main

_TRIED = (
    Message("system", "Be kind. Say 1st"),
    Message("user", "What is it?\nTell me, please: a1 "),
    Message("assistant", "It's (so far) 12 apples."),
    Message("user", " more\n"),
    Message("assistant", 'Ünlike 3 "pears"\n\n- and\n'),
    Message("user", "(2) 日本 why?"),
)
"""Conversations that the ids are compared on: this one, and its beginnings."""

_JINJA = """\
{%- set marks = MARKS -%}
{%- macro text(content) -%}
{%- set found = namespace(text=content) -%}
{%- for mark, parted in marks -%}
{%- set found.text = found.text | replace(mark, parted) -%}
{%- endfor -%}
{{- found.text -}}
{%- endmacro -%}
{{- bos_token -}}AFTER_BOS
{%- for message in messages if message.role == 'system' -%}
{{- text(message.content) + ' ' -}}
{%- endfor -%}
{%- for message in messages if message.role != 'system' -%}
{%- if message.role == 'assistant' -%}
{{- ('' if message.content.startswith(' ') else ' ') + text(message.content) + eos_token -}}
{%- else -%}
{{- (HEAD if loop.first else FOLLOW_UP) + text(message.content) + CUE -}}
{%- endif -%}
{%- endfor -%}"""


def keep_format(template: Template) -> None:
    """Gives a tokenizer that is to be saved the chat template of the format used in training.

    A tokenizer for which none gives the same ids is left without one: better none than one that is
    nearly right. A template of the style "chat" is the tokenizer's own, and stays.
    """
    if template.style != "ice":
        return
    template.tokenizer.chat_template = chat_template(template)
    if template.tokenizer.chat_template is None and is_main():
        print(
            f"{template.tokenizer.name_or_path}: models are saved without a chat template, because "
            "this tokenizer reads a whole text otherwise than its parts"
        )


def chat_template(template: Template) -> str | None:
    """The paper's format as a Jinja template, or None where the tokenizer would read other ids.

    Args:
        template: of the style "ice".
    """
    tokenizer = template.tokenizer
    marks = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    parted = [(m, f"{m[: len(m) // 2]} {m[len(m) // 2 :]}") for m in sorted(marks) if len(m) > 1]
    for after_bos in ("", "{{- ' ' -}}"):  # some tokenizers begin words with a blank, but not here
        text = _JINJA.replace("AFTER_BOS", after_bos)
        for name, value in (("HEAD", TEMPLATE_HEAD), ("FOLLOW_UP", FOLLOW_UP)):
            text = text.replace(name, json.dumps(value))
        text = text.replace("CUE", json.dumps(RESPONSE_CUE))
        text = text.replace("MARKS", json.dumps(parted, ensure_ascii=False))
        if all(
            _read_at_once(tokenizer, text, messages) == template.encode_prompt(messages)
            for messages in (_TRIED[start:stop] for start in (0, 1) for stop in (2, 4, 6))
        ):
            return text
    return None


def _read_at_once(tokenizer: Any, text: str, messages: tuple[Message, ...]) -> list[int]:
    """Ids as other programs make them."""
    return tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        chat_template=text,
        add_generation_prompt=True,
        return_dict=False,
    )


def main(arguments: list[str]) -> None:
    """Adds the chat template to model folders that were saved without one.

    Raises:
        UserError: no folder, one with a template already, or none that would be right.
    """
    from common.models.loading import load_tokenizer

    if not arguments:
        raise UserError("usage: python -m common.data.chat_template FOLDER…")
    for folder in arguments:
        tokenizer = load_tokenizer(folder)
        if not Path(folder).is_dir() or tokenizer.chat_template:
            raise UserError(f"{folder}: not a folder, or its tokenizer has a chat template already")
        keep_format(Template(tokenizer))
        if tokenizer.chat_template is None:
            raise UserError(
                f"{folder}: read as one text, this tokenizer would give other ids than in "
                "training; render prompts by common.data.template instead"
            )
        tokenizer.save_pretrained(folder)
        print(f"{folder}: its tokenizer has the paper's format as its chat template now")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"chat_template: error: {error}")
