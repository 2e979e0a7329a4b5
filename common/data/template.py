"""From messages to token ids: the paper's prompt format (§3.1), or a tokenizer's chat template.

Prompt and response are tokenized separately and their ids joined, so that the boundary between
them never moves. The text of users and files is tokenized with special tokens switched off: a
"</s>" that somebody wrote stays five letters. Blanks between the template's pieces and people's
text go where the tokenizer itself would put them (`Template._seam`), so that the ids are those of
the whole text read at once, which is what other programs do (`common.data.chat_template`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.data.records import Message
from common.errors import UserError

PREAMBLE = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
TEMPLATE_HEAD = f"{PREAMBLE} ### USER: "
RESPONSE_CUE = " ASSISTANT:"
FOLLOW_UP = " USER: "
_CUE = f"{RESPONSE_CUE} "


@dataclass(frozen=True)
class EncodedConversation:
    """One training example of stage 1."""

    input_ids: list[int]
    loss_mask: list[bool]
    """True at response tokens and their end token: those the model is to learn."""


class Template:
    """Renders messages as token ids with one tokenizer."""

    def __init__(self, tokenizer: Any, style: str = "ice") -> None:
        """Args:
            tokenizer: a Hugging Face tokenizer with an end token.
            style: "ice" for the paper's template, "chat" for the tokenizer's own.

        Raises:
            UserError: no end token; "chat" without a chat template, or with one that fails.
        """
        if tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no end token (eos)")
        if style == "chat" and not tokenizer.chat_template:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; "
                "use --template ice"
            )
        self.tokenizer = tokenizer
        self.style = style
        self._seams: dict[tuple[str, str], tuple[list[int], str]] = {}
        self.end_id: int = self._turn_end() if style == "chat" else tokenizer.eos_token_id
        """What ends a response, and generation: the end token, or the chat template's own mark."""

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of everything before the response, beginning token included."""
        return [i for part, _ in self._parts(messages) for i in part]

    def encode_response(self, text: str) -> list[int]:
        """Ids of a response, with its end token."""
        return [*self._plain(self._spaced(text)), self.end_id]

    def encode_conversation(self, messages: Sequence[Message]) -> EncodedConversation:
        """Ids of a whole conversation; every assistant turn is marked to be learned.

        It equals `encode_prompt(messages[:-1]) + encode_response(messages[-1].content)`.
        """
        ids: list[int] = []
        mask: list[bool] = []
        for part, learned in [
            *self._parts(messages[:-1]),
            (self.encode_response(messages[-1].content), True),
        ]:
            ids += part
            mask += [learned] * len(part)
        return EncodedConversation(ids, mask)

    def decode_response(self, ids: Sequence[int]) -> str:
        """Text of a response; its end token, other special tokens and blanks around it left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _parts(self, messages: Sequence[Message]) -> list[tuple[list[int], bool]]:
        """(ids, whether they are to be learned), up to where the next response begins."""
        parts = self._chat_parts(messages) if self.style == "chat" else self._ice_parts(messages)
        bos = self.tokenizer.bos_token_id
        first = next((part for part, _ in parts if part), [None])
        if bos is not None and first[0] != bos:
            parts.insert(0, ([bos], False))
        return parts

    def _ice_parts(self, messages: Sequence[Message]) -> list[tuple[list[int], bool]]:
        system = " ".join(m.content for m in messages if m.role == "system")
        turns = [m for m in messages if m.role != "system"]
        parts: list[tuple[list[int], bool]] = []
        if system:
            parts.append((self._plain(system), False))
        for i, message in enumerate(turns):
            if message.role == "assistant":
                parts.append((self.encode_response(message.content), True))
                continue
            if i > 0:
                opening, gap = self._seam(self.tokenizer.eos_token, FOLLOW_UP)
            elif system:
                opening, gap = self._seam("x", f" {TEMPLATE_HEAD}")
            else:
                opening, gap = self._seam("", TEMPLATE_HEAD)
            parts.append((opening, False))
            parts.append((self._plain(gap + message.content), False))
            parts.append((self._seam("x", _CUE)[0], False))
        return parts

    def _seam(self, left: str, piece: str) -> tuple[list[int], str]:
        """How a fixed piece meets the texts around it: its ids, and what to put before the next.

        A tokenizer reads "USER: hi" as "USER:" and " hi", as "USER: " and "hi" where the former is
        a token of its own, or it puts blanks before words by itself. Tried out on the letter x.

        Args:
            left: what stands before the piece: nothing, a text ("x"), or the end token.
            piece: with the blanks on both sides of it.
        """
        if (left, piece) not in self._seams:
            before = self._fixed(left)
            whole = self._fixed(f"{left}{piece}x")
            bare, core = piece.rstrip(), piece.strip()
            forms = [(bare, " "), (core, " "), (bare, ""), (core, "")]
            if piece != _CUE:  # a prompt ends without a blank
                forms.append((piece, ""))
            ids, gap = next(
                (
                    (self._fixed(form), gap)
                    for form, gap in forms
                    if before + self._fixed(form) + self._plain(f"{gap}x") == whole
                ),
                (self._fixed(forms[0][0]), forms[0][1]),
            )
            self._seams[left, piece] = ids, gap
        return self._seams[left, piece]

    def _chat_parts(self, messages: Sequence[Message]) -> list[tuple[list[int], bool]]:
        """The chat template around placeholders, so that only its own text may hold specials."""
        holders = [f"\ue000{i}\ue001" for i in range(len(messages))]
        text = self._rendered([m.role for m in messages], holders, add_generation_prompt=True)
        end = self.tokenizer.convert_ids_to_tokens(self.end_id)
        parts: list[tuple[list[int], bool]] = []
        for message, holder in zip(messages, holders, strict=True):
            before, found, text = text.partition(holder)
            if not found:
                raise UserError(
                    f"the chat template of {self.tokenizer.name_or_path} leaves out a "
                    f"{message.role} message; use --template ice"
                )
            parts.append((self._fixed(before), False))
            if message.role == "assistant":
                parts.append(([*self._plain(message.content), self.end_id], True))
                if text.lstrip().startswith(end):  # the template writes it too
                    text = text.lstrip().removeprefix(end)
            else:
                parts.append((self._plain(message.content), False))
        parts.append((self._fixed(text), False))
        return parts

    def _turn_end(self) -> int:
        """The special token that the chat template puts behind an assistant's turn, or eos."""
        holders = ["\ue0000\ue001", "\ue0001\ue001"]
        text = self._rendered(["user", "assistant"], holders)
        after = self._fixed(text.partition(holders[1])[2].strip())
        known = self.tokenizer.added_tokens_decoder
        if after and after[0] in known and known[after[0]].special:
            return after[0]
        return self.tokenizer.eos_token_id

    def _rendered(
        self, roles: Sequence[str], contents: Sequence[str], *, add_generation_prompt: bool = False
    ) -> str:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except TemplateError as error:
            raise UserError(
                f"the chat template of {self.tokenizer.name_or_path} refuses a conversation of "
                f"{', '.join(roles)}: {error}; use --template ice"
            ) from None

    def _spaced(self, text: str) -> str:
        """The paper's template has a blank between "ASSISTANT:" and the response."""
        return text if self.style == "chat" else self._seam("x", _CUE)[1] + text

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids

    def _fixed(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids if text else []


def shorten_prompt(ids: list[int], limit: int, bos_id: int | None) -> list[int]:
    """Keeps a prompt's beginning token, if it starts with one, and its end: `limit` ids in all."""
    if len(ids) <= limit:
        return ids
    head = ids[:1] if bos_id is not None and ids[0] == bos_id else []
    return head + ids[len(ids) - (limit - len(head)) :]
