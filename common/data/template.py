"""From messages to token ids: the paper's prompt format (§3.1), or a tokenizer's chat template.

Prompt and response are tokenized separately and their ids joined, so that the boundary between
them never moves. The text of users and files is tokenized with special tokens switched off: a
"</s>" that somebody wrote stays five letters. Blanks between the template's pieces and people's
text go where the tokenizer itself would put them (`Template._seam`), so that the ids are those of
the whole text read at once, which is what other programs do (`common.data.chat_template`).
A tokenizer's chat template has its own reader, `common.data.own_template`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.data.own_template import OwnTemplate
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
        self._own = OwnTemplate(tokenizer) if style == "chat" else None
        self.end_id: int = self._own.end_id if self._own else tokenizer.eos_token_id
        """What ends a response, and generation: the end token, or the chat template's own mark."""

    @property
    def form(self) -> str:
        """What is written around messages, told apart from other tokenizers'."""
        return self.tokenizer.chat_template if self._own else self.style

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of everything before the response, beginning token included.

        A chat template writes that token itself, or there is none.
        """
        if self._own:
            return self._own.encode_prompt(messages)
        return self._ice_prompt(messages)[0]

    def encode_response(self, text: str) -> list[int]:
        """Ids of a response, with its end token."""
        if self._own:
            return self._own.encode_response(text)
        # The paper's template has a blank between "ASSISTANT:" and the response.
        return [*self._plain(self._seam("x", _CUE)[1] + text), self.end_id]

    def encode_conversation(self, messages: Sequence[Message]) -> EncodedConversation:
        """Ids of a whole conversation; every assistant turn is marked to be learned.

        It equals `encode_prompt(messages[:-1]) + encode_response(messages[-1].content)`.
        """
        read = self._own.encode_marked if self._own else self._ice_prompt
        ids, mask = read(messages[:-1])
        response = self.encode_response(messages[-1].content)
        return EncodedConversation(ids + response, mask + [True] * len(response))

    def decode_response(self, ids: Sequence[int]) -> str:
        """Text of a response; its end token, other special tokens and blanks around it left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _ice_prompt(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Ids up to where the next response begins, and whether they are to be learned."""
        parts = self._ice_parts(messages)
        bos = self.tokenizer.bos_token_id
        first = next((part for part, _ in parts if part), [None])
        if bos is not None and first[0] != bos:
            parts.insert(0, ([bos], False))
        ids = [i for part, _ in parts for i in part]
        return ids, [learned for part, learned in parts for _ in part]

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
