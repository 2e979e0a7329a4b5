"""A tokenizer's own chat template: the ids that `apply_chat_template` gives, and no forged tokens.

A conversation is rendered as one text and read at once, as other programs do: tokenizers read a
text's pieces otherwise than the whole. But of special tokens only those count that the template
wrote. They are put under secret names, which a copy of the tokenizer knows, and the copy takes the
real ones, which are then only in people's messages, for letters.
"""

import copy
import re
import secrets
from collections.abc import Sequence
from typing import Any

from common.data.records import Message
from common.errors import UserError
from common.training.distributed import is_main

_NAME, _WRITTEN, _BEGIN, _END = "\ue001\ue002\ue003\ue004"
"""What a mark in a rendered text means: a special token of the template's, one that somebody wrote
into a message, and where a message's letters begin and end."""

_TRIED = (
    Message("user", "What is it?\nTell me, please: a1 "),
    Message("assistant", "It's (so far) 12 apples."),
    Message("user", "(2) 日本 why?"),
    Message("assistant", "Well, that is so."),
)
"""The conversation that ids are compared on."""


class OwnTemplate:
    """Renders messages as token ids by a tokenizer's chat template."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises:
        UserError: the template fails on a question and an answer.
        """
        self.tokenizer = tokenizer
        self._key = f"\ue000{secrets.randbelow(10**18):018d}:"  # so that nobody can write a mark
        known = {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        needed = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        self._ids = known | dict(needed)
        self._specials = list(self._ids)
        self._names = {t: self._mark(i, _NAME) for i, t in enumerate(self._specials)}
        longest_first = sorted(map(re.escape, self._specials), key=len, reverse=True)
        self._special = re.compile("|".join(longest_first))
        self._named = re.compile(f"{self._key}(\\d+){_NAME}")
        self._reader = self._copy() if tokenizer.is_fast else None
        self.end_id, self._end = tokenizer.eos_token_id, re.compile("")
        """What ends an answer: the special token that the template puts behind it, or eos."""
        self._find_surroundings()
        self._warn()

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of everything before the next answer."""
        return self._read(self._rendered(messages, add_generation_prompt=True)[0])

    def encode_marked(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """The same, and which of them are answers' and their end tokens."""
        text, places = self._rendered(messages, add_generation_prompt=True)
        ids = self._read(text)
        mask = [False] * len(ids)
        for i, message in enumerate(messages):
            if message.role == "assistant":
                said = text[: places[i]]
                answer = self._spoken(message.content.rstrip() or message.content)
                begin = len(said) - _shared(said[::-1], answer[::-1])
                if not said.endswith(answer):  # templates may drop thoughts before an answer
                    begin += len(_blanks(said[begin:]))
                end = self._end.match(text, len(said)).end()
                first, last = (_shared(self._read(text[:n]), ids) for n in (begin, end))
                mask[first:last] = [True] * (last - first)
        return ids, mask

    def encode_response(self, text: str) -> list[int]:
        """Ids of an answer as they are behind the prompt, with the end token."""
        text = self._spoken(text) + self._trail
        for cue, head in self._cues:  # the empty one, the last, fits always
            ids = self._read(cue + text)
            if ids[: len(head)] == head:
                break
        return [*ids[len(head) :], self.end_id]

    def _spoken(self, text: str) -> str:
        """An answer with the blanks before it that the template writes behind the prompt."""
        return self._lead + (text.strip() if self._strips else text)

    def _find_surroundings(self) -> None:
        """What the template puts around an answer, told from one question and one answer."""

        def around(answer: str) -> tuple[str, str]:
            messages = [Message("user", "x"), Message("assistant", answer)]
            text, places = self._rendered(messages)
            return text[: places[1]].removesuffix("x"), text[places[1] :]

        before, after = around("x")
        self._strips = around(" x ") == (before, after)
        self._trail = ""
        if end := self._named.match(after.lstrip()):
            self._trail = _blanks(after)
            self.end_id = self._ids[self._specials[int(end[1])]]
            self._end = re.compile(f"\\s*{end[0]}|")  # nothing, where the template writes none
        cue, _ = self._rendered([Message("user", "x")], add_generation_prompt=True)
        lead = before.removeprefix(cue) if before.startswith(cue) else ""
        self._lead = "" if lead.strip() else lead  # other things are the model's to say, or not
        # Where cue and answer would merge, the answer is read without the blanks before it.
        self._cues = [(c, self._read(c)) for c in (cue, cue.rstrip(), "")]

    def _rendered(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False
    ) -> tuple[str, dict[int, int]]:
        """A conversation's text, the template's special tokens in it under their names.

        Returns:
            text, and where the letters of each message end in it; empty ones may be missing.

        Raises:
            UserError: the template refuses the conversation, or leaves out one of its messages.
        """
        from jinja2 import TemplateError

        name = self.tokenizer.name_or_path
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": m.role, "content": self._marked(i, m)} for i, m in enumerate(messages)],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except TemplateError as error:
            raise UserError(
                f"the chat template of {name} refuses a conversation of "
                f"{', '.join(m.role for m in messages)}: {error}; use --template ice"
            ) from None
        text = self._special.sub(lambda found: self._names[found[0]], text)
        text = re.sub(
            f"{self._key}(\\d+){_WRITTEN}", lambda found: self._specials[int(found[1])], text
        )
        text, *parts = re.split(f"{self._key}(\\d+)([{_BEGIN}{_END}])", text)
        places = {}
        for number, kind, piece in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            if kind == _END:
                places[int(number)] = len(text)
            text += piece
        for i, message in enumerate(messages):
            if i not in places and _counts(message):
                raise UserError(
                    f"the chat template of {name} leaves out a {message.role} message; "
                    "use --template ice"
                )
        return text, places

    def _marked(self, number: int, message: Message) -> str:
        """A message with marks around its letters, not its blanks: templates may strip it."""
        text = message.content
        if not _counts(message):
            return text
        letters = text.strip()
        lead = _blanks(text)
        trail = text[len(lead) + len(letters) :]
        harmless = self._special.sub(
            lambda found: self._mark(self._specials.index(found[0]), _WRITTEN), letters
        )
        return f"{lead}{self._mark(number, _BEGIN)}{harmless}{self._mark(number, _END)}{trail}"

    def _mark(self, number: int, kind: str) -> str:
        return f"{self._key}{number}{kind}"

    def _copy(self) -> Any:
        """The tokenizer with the names as tokens that behave like the special ones they mean.

        They are not special themselves, so that they are tokens where special ones are letters.
        """
        from tokenizers import AddedToken

        reader = copy.deepcopy(self.tokenizer)
        like = {t.content: t for t in self.tokenizer.added_tokens_decoder.values()}
        flags = ("single_word", "lstrip", "rstrip", "normalized")
        reader.add_tokens(
            [
                AddedToken(name, **{f: getattr(like[token], f) for f in flags if token in like})
                for token, name in self._names.items()
            ]
        )
        self._meant = {
            reader.convert_tokens_to_ids(name): self._ids[t] for t, name in self._names.items()
        }
        return reader

    def _read(self, text: str) -> list[int]:
        """Ids of a rendered text, or of a part of it."""
        if self._reader is not None:
            return [self._meant.get(i, i) for i in _letters(self._reader, text)]
        ids: list[int] = []
        for i, piece in enumerate(self._named.split(text)):  # a slow tokenizer does it like this
            if i % 2:
                ids.append(self._ids[self._specials[int(piece)]])
            elif piece:
                ids += _letters(self.tokenizer, piece)
        return ids

    def _warn(self) -> None:
        """Tells where ids differ from those of `apply_chat_template` nevertheless."""
        rows = [{"role": m.role, "content": m.content} for m in _TRIED]

        def told(count: int, *, prompt: bool) -> list[int]:
            return self.tokenizer.apply_chat_template(
                rows[:count], add_generation_prompt=prompt, return_dict=False
            )

        differ = []
        try:
            prompts = [self.encode_prompt(_TRIED[:n]) for n in (1, 3)]
            if prompts != [told(1, prompt=True), told(3, prompt=True)]:
                differ.append("prompts")
            # Only the end token may be ours alone.
            ids = prompts[-1] + self.encode_response(_TRIED[-1].content)[:-1]
            if told(4, prompt=False)[: len(ids)] != ids:
                differ.append("responses")
        except UserError:  # several turns are refused: told when there are some
            return
        if differ and is_main():
            print(
                f"{self.tokenizer.name_or_path}: with --template chat, {' and '.join(differ)} get "
                "other ids here than apply_chat_template gives them: the template writes otherwise "
                "around an answer than behind a prompt, or the tokenizer joins the two"
            )


def _letters(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def _counts(message: Message) -> bool:
    """Whether a template must have a place for it."""
    return message.role == "assistant" or message.content.strip() != ""


def _blanks(text: str) -> str:
    """Those before its first letter."""
    return text[: len(text) - len(text.lstrip())]


def _shared(one: Sequence[int | str], other: Sequence[int | str]) -> int:
    """How many ids, or letters, two of them begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
