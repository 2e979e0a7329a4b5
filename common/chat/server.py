"""The chat as a page on this machine. The page holds the conversation; nothing is kept here."""

import asyncio
import hashlib
import hmac
import json
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from common.chat.conversation import Conversation, Turn
from common.chat.session import open_reply, remark
from common.chat.settings import ChatArguments, ChatSampling
from common.chat.speaker import Judge, Reply, Speaker, in_turn
from common.errors import UserError
from common.web_guard import Guard
from common.web_pages import page_files

PAGES = Path(__file__).parent / "pages"
HOST = "127.0.0.1"
MOST_TURNS = 1000
MOST_CHARACTERS = 100_000


class Strict(BaseModel):
    """What a page of ours sends, and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SignIn(Strict):
    """The token of the link."""

    token: str = Field(min_length=1, max_length=200)


class PastTurn(Strict):
    """A question that was answered."""

    question: str = Field(max_length=MOST_CHARACTERS)
    answers: list[str] = Field(max_length=100)


class Question(Strict):
    """A question, with all that was said before."""

    turns: list[PastTurn] = Field(max_length=MOST_TURNS)
    question: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    sampling: dict[str, float]
    attempt: int = Field(ge=0, le=2**31)


def build_app(
    speakers: Sequence[Speaker],
    judge: Judge | None,
    sampling: ChatSampling,
    system: str,
    token: str,
) -> FastAPI:
    """The application, without what `Guard` adds.

    Args:
        token: of the link that lets people in.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    files = page_files(PAGES)
    names = [speaker.name for speaker in speakers]
    known = hashlib.sha256(token.encode()).digest()
    cookie = f"chat-{known.hex()[:8]}"  # another chat on this machine has another one
    one_at_a_time = asyncio.Lock()

    def is_known(given: str) -> bool:
        return hmac.compare_digest(hashlib.sha256(given.encode("utf-8", "replace")).digest(), known)

    def signed_in(request: Request) -> None:
        if not is_known(request.cookies.get(cookie, "")):
            raise HTTPException(401, "open the link that the command printed")

    def page(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such page")
        return Response(files[name].content, media_type=files[name].kind)

    @app.get("/")
    def chat_page() -> Response:
        return page("chat.html")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        return page(name)

    @app.post("/api/session")
    def sign_in(body: SignIn) -> Response:
        if not is_known(body.token):
            raise HTTPException(403, "this link is of an earlier start; open the newest one")
        response = JSONResponse({"signed_in": True})
        response.set_cookie(cookie, body.token, httponly=True, samesite="strict")
        return response

    @app.get("/api/about", dependencies=[Depends(signed_in)])
    def about() -> dict[str, Any]:
        return {
            "models": names,
            "scored": judge is not None,
            "system": system,
            "sampling": asdict(sampling),
        }

    @app.post("/api/answer", dependencies=[Depends(signed_in)])
    def answer(body: Question) -> StreamingResponse:
        if any(len(turn.answers) != len(names) for turn in body.turns):
            raise UserError(f"each turn must have {len(names)} answers")
        wanted = sampling
        for name, value in body.sampling.items():
            wanted = wanted.changed(name, str(value if value % 1 else int(value)))
        turns = [Turn(t.question, t.answers, []) for t in body.turns]
        talk = Conversation(names, system, turns)
        replies = [
            open_reply(speaker, talk.messages(n, body.question), wanted, body.attempt)
            for n, speaker in enumerate(speakers)
        ]
        return StreamingResponse(
            lines(replies, judge, one_at_a_time), media_type="application/jsonl"
        )

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        fields = [str(e["loc"][-1])[:40] for e in error.errors()[:3] if e["loc"]]
        return JSONResponse({"error": f"not as this page sends it: {', '.join(fields)}"}, 422)

    @app.exception_handler(UserError)
    def cannot(_: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    return app


async def lines(
    replies: Sequence[Reply], judge: Judge | None, one_at_a_time: asyncio.Lock
) -> AsyncIterator[str]:
    """JSON lines: pieces of the answers as they come, then each whole one with its score.

    When the page goes away, or asks to stop, this ends behind the token that is being drawn.
    """

    def line(**content: Any) -> str:  # noqa: ANN401
        return json.dumps(content, ensure_ascii=False) + "\n"

    try:
        async with one_at_a_time:
            stream = in_turn(replies)
            while found := await run_in_threadpool(next, stream, None):
                yield line(model=found[0], text=found[1])
            for number, reply in enumerate(replies):
                score = None
                if judge is not None:
                    score = await run_in_threadpool(judge.score, reply.fitted.messages, reply.text)
                told = remark(reply, score, stopped=False)
                yield line(model=number, answer=reply.text, score=score, remark=told)
    except UserError as error:  # the model's numbers are not finite
        yield line(error=str(error))
    finally:
        for reply in replies:
            reply.stop()


def serve_page(
    speakers: Sequence[Speaker],
    judge: Judge | None,
    sampling: ChatSampling,
    settings: ChatArguments,
) -> None:
    """Serves until SIGTERM or Ctrl-C, on this machine only.

    Raises:
        UserError: the port is taken, or not for this user.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, settings.port))
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise UserError(f"port {settings.port}: {why}; choose another --port") from None
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    token = secrets.token_urlsafe(32)
    app = build_app(speakers, judge, sampling, settings.system, token)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn ends in order, and then raises the signal again: that is no failure.
        signal.signal(number, lambda *_: sys.exit(0))
    print(f"chat: open {address}/#{token}", flush=True)
    print("chat: stop with Ctrl-C", flush=True)
    uvicorn.Server(configuration(app, address)).run(sockets=[listener])


def configuration(app: FastAPI, address: str) -> uvicorn.Config:
    """How uvicorn serves."""
    return uvicorn.Config(
        Guard(app, address, remote=False),
        http="h11",  # limits the length of headers
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
