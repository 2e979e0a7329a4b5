"""A chat-completions endpoint as a judge: each question asked once, within a budget."""

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tqdm import tqdm

from common.config.arguments import check_range, option
from common.endpoint.cache import AnswerCache, key_of
from common.errors import UserError
from common.web import ask, post_json, short

JITTER = 0.5
SHOWN_OF_KEY = 7
"""Characters that a key's beginning may show: no more than the kind of key, as in "sk-proj"."""
PATH = "/chat/completions"


@dataclass
class EndpointArguments:
    """The endpoint, and what may be spent on it."""

    HARMLESS: ClassVar = (
        *("api_key_variable", "cache", "concurrency", "timeout", "retries"),
        *("max_requests", "max_tokens"),
    )

    endpoint: str = option(
        "", "base URL of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1"
    )
    judge_model: str = option("", "the judge, as the endpoint calls it")
    judge_temperature: float = option(0.0, "its sampling temperature")
    answer_tokens: int = option(1024, "longest answer, in the judge's tokens, reasoning included")
    request: str = option(
        "",
        "further fields of each request, a JSON object; null takes one out, as in "
        '{"max_tokens": null, "max_completion_tokens": 4096}',
    )
    api_key_variable: str = option(
        "RLHF_JUDGE_KEY",
        "name of the environment's variable that holds the API key; it is sent, and never written",
    )
    cache: str = option("", "file of answers; by default answers.sqlite where the results go")
    concurrency: int = option(4, "prompts that are asked about at a time")
    timeout: float = option(120.0, "seconds that one answer may take")
    retries: int = option(6, "further tries after a time-out, code 429 or 5xx")
    max_requests: int = option(
        0, "requests that the cache may have seen in all, failed ones included; 0 for no limit"
    )
    max_tokens: int = option(
        0,
        "tokens that they may have cost in all, by the endpoint's `usage`; requests under way when "
        "it is reached still count on; 0 for no limit",
    )

    def __post_init__(self) -> None:
        check_range(self, 1, "answer_tokens", "concurrency")
        check_range(self, 0, "judge_temperature", "retries", "max_requests", "max_tokens")
        check_range(self, 0, "timeout", above=True)
        if self.endpoint:
            url_of(self.endpoint)
        further_fields(self.request)


class BudgetSpent(Exception):
    """No further request may be sent; the text says which limit was reached."""


class Halted(Exception):
    """Another prompt's trouble has ended the work."""


def url_of(endpoint: str) -> str:
    """The URL that chat completions are asked of.

    Raises:
        UserError: it is no HTTP URL, or holds a password, which would end up in the settings.
    """
    try:
        parts = urlsplit(endpoint)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        valid = valid and parts.port != 0 and endpoint.isprintable() and " " not in endpoint
    except ValueError:
        valid = False
    if not valid:
        raise UserError(
            f"endpoint must be an HTTP URL, such as http://127.0.0.1:8000/v1, not '{endpoint}'"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"endpoint ({parts.scheme}://{parts.hostname}…) must have no user name, password, "
            "query or fragment: it is written into the run; a key belongs into the environment "
            "(api_key_variable)"
        )
    base = endpoint.rstrip("/")
    return base if base.endswith(PATH) else base + PATH


def further_fields(text: str) -> dict[str, Any]:
    """The setting `request` as an object.

    Raises:
        UserError: it is none, or sets what other settings set.
    """
    try:
        fields = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise UserError(f"request must be a JSON object, not {text[:80]}")
    for name in ("model", "messages", "stream", "n"):
        if name in fields:
            raise UserError(f"request must not set '{name}'")
    return fields


class Judge:
    """Asks the endpoint, or the cache where it knows the answer; safe in threads."""

    def __init__(
        self, settings: EndpointArguments, cache: AnswerCache, halted: threading.Event
    ) -> None:
        """Args:
        halted: once set, nothing further is sent, and pauses end.
        """
        self.settings = settings
        self.url = url_of(settings.endpoint)
        self.cache = cache
        self.halted = halted
        self.from_cache = 0
        self._told = False
        self._key = os.environ.get(settings.api_key_variable, "").strip()
        self._fields = further_fields(settings.request)
        self._sending = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}
        """By question: who asks the same one meanwhile waits for the answer."""
        self._asked: set[str] = set()
        """Questions that the endpoint has answered to this judge."""

    @property
    def has_key(self) -> bool:
        """Whether the environment holds an API key."""
        return bool(self._key)

    def known(self, messages: list[dict[str, str]]) -> str | None:
        """What the cache has as the judge's text, if anything."""
        return self.cache.find(key_of(self.url, self._body_of(messages)))

    def answer(
        self, messages: list[dict[str, str]], usable: Callable[[str], bool] = lambda text: True
    ) -> str:
        """The judge's text.

        Args:
            usable: whether an answer of an earlier command will do; where not, it is asked again.

        Raises:
            NoAnswer: the endpoint gave none.
            BudgetSpent, Halted: it was not asked.
            UserError: a limit of tokens cannot be held, for the endpoint does not count them.
        """
        body = self._body_of(messages)
        key = key_of(self.url, body)
        with self._sending:
            asking = self._asking.setdefault(key, threading.Lock())
        with asking:
            known = self.cache.find(key)
            if known is not None and (key in self._asked or usable(known)):
                self.count_from_cache()
                return known
            text, tokens = ask(
                lambda: self._ask_once(key, body),
                retries=self.settings.retries,
                wait=self.halted.wait,
                tell=self._tell,
                jitter=JITTER,
            )
            self._asked.add(key)
        if self.settings.max_tokens and tokens is None:
            raise UserError(
                "max_tokens cannot be held: this endpoint's answers have no `usage`; limit "
                "max_requests instead"
            )
        return text

    def count_from_cache(self) -> None:
        """An answer was taken out of the cache."""
        with self._sending:
            self.from_cache += 1

    def _body_of(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        body = {
            "model": self.settings.judge_model,
            "messages": messages,
            "temperature": self.settings.judge_temperature,
            "max_tokens": self.settings.answer_tokens,
            **self._fields,
        }
        return {name: value for name, value in body.items() if value is not None}

    def hide_key(self, text: str) -> str:
        """A text without the API key, which an endpoint may quote, nor its beginning, cut short."""
        if self._key:
            for length in range(len(self._key), min(SHOWN_OF_KEY, len(self._key) - 1), -1):
                text = text.replace(self._key[:length], "…")
        return text

    def _tell(self, text: str) -> None:
        """Says on the terminal, the first time only, that the endpoint keeps its askers waiting."""
        with self._sending:
            told, self._told = self._told, True
        if not told:
            times = f"up to {self.settings.retries} more times, with growing pauses"
            trouble = self.hide_key(f"{self.url}: {text}")
            tqdm.write(f"no answer from {trouble}; it is asked {times}", file=sys.stderr)

    def _ask_once(self, key: str, body: dict[str, Any]) -> tuple[str, int | None]:
        with self._sending:
            if self.halted.is_set():
                raise Halted
            self._check_budget()
            self.cache.note_request(key)
        raw = post_json(self.url, body, timeout=self.settings.timeout, token=self._key)
        text, tokens = read_completion(raw)
        self.cache.keep(key, self.url, body, text, tokens or 0)
        return text, tokens

    def _check_budget(self) -> None:
        spent = self.cache.spent()
        for name, used in (("max_requests", spent.requests), ("max_tokens", spent.tokens)):
            limit = getattr(self.settings, name)
            if limit and used >= limit:
                raise BudgetSpent(f"{name} ({limit}) is reached: {used} so far")


def read_completion(raw: bytes) -> tuple[str, int | None]:
    """The text of a chat completion, "" where it has none, and what it cost, where that is told.

    https://platform.openai.com/docs/api-reference/chat/object

    Raises:
        HTTPException: it is no such object. (As with half an answer, it is worth asking again.)
    """
    try:
        content = json.loads(raw)
        message = content["choices"][0]["message"]["content"]
        usage = content.get("usage")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise HTTPException(f"answered no chat completion: {short(raw)}") from None
    if isinstance(message, list):  # parts, of which texts matter
        message = "".join(str(p.get("text") or "") for p in message if isinstance(p, dict))
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    text = message if isinstance(message, str) else ""
    text = text.encode("utf-8", "replace").decode("utf-8")  # JSON can spell halves of pairs
    return text, tokens if type(tokens) is int and tokens >= 0 else None
