"""The web service: pages, and the few calls that they make."""

import json
import math
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import uvicorn
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from common.errors import UserError
from common.evaluation.criteria import CRITERIA, DEFINITIONS
from common.web_guard import Guard
from common.web_pages import page_files
from step2_reward.annotation.answers import Answer, BadAnswer
from step2_reward.annotation.connections import ImpatientProtocol
from step2_reward.annotation.export import split_rows
from step2_reward.annotation.project import Project
from step2_reward.annotation.storage import NotYours, OtherContent
from step2_reward.annotation.summary import Summary
from step2_reward.annotation.tokens import Tokens

PAGES = Path(__file__).parent / "pages"
COOKIE_DAYS = 60
"""For which a browser stays signed in."""
FIGURES_SECONDS = 0.5
"""Figures that take no longer are worked out whenever they are asked for."""


class Refused(Exception):
    """A request that is answered with an error; `kind` is for the page, `text` for people."""

    def __init__(self, status: int, kind: str, text: str) -> None:
        super().__init__(text)
        self.status, self.kind, self.text = status, kind, text


class SignIn(BaseModel):
    """A token, as a personal link carries it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    page: str = Field(pattern="^(labeler|project)$")
    token: str = Field(min_length=1, max_length=200)


class Figures:
    """The project page's figures. The first ones of a large project take seconds: no more than a
    tenth of the time goes to such, however often they are asked for, so that labelers need not
    wait."""

    def __init__(self, project: Project, labelers: Sequence[str]) -> None:
        self._summary = Summary(project, labelers)
        self._lock = threading.Lock()
        self._last: dict[str, Any] = {}
        self._good_until = 0.0

    def now(self) -> dict[str, Any]:
        """See `Summary`; perhaps a little old, as its `now` says."""
        with self._lock:
            begun = time.monotonic()
            if begun >= self._good_until:
                self._last = self._summary.figures(time.time())
                ended = time.monotonic()
                took = ended - begun
                self._good_until = ended + (9 * took if took > FIGURES_SECONDS else 0)
            return self._last


def build_app(project: Project, tokens: Tokens, labelers: Sequence[str], identity: str) -> FastAPI:
    """The application, without what `Guard` adds.

    Args:
        identity: of the project; tells its cookies from those of another one on this machine.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    files = page_files(PAGES)
    cookies = {page: f"annotate-{page}-{identity}" for page in ("labeler", "project")}

    def page(name: str) -> Response:
        if name not in files:
            raise Refused(404, "unknown", "there is no such page")
        return Response(files[name].content, media_type=files[name].kind)

    def signed_in(request: Request) -> str:
        """The labeler; a page that changes something says whose it was, for two may share a
        browser, and a foreign page cannot set that header."""
        name = tokens.labeler(request.cookies.get(cookies["labeler"], ""))
        if name is None:
            raise Refused(401, "signed out", "please open your personal link again")
        if request.method == "GET":
            return name
        page_of = request.headers.get("x-annotate")
        if not page_of:
            text = "the header X-Annotate is missing, which says whose page this is"
            raise Refused(409, "no labeler", text)
        if page_of != quote(name, safe=""):
            raise Refused(409, "other labeler", f"this browser is signed in as {name} now")
        return name

    def for_project(request: Request) -> None:
        if not tokens.is_project(request.cookies.get(cookies["project"], "")):
            raise Refused(401, "signed out", "please open the project page's link again")

    Labeler = Annotated[str, Depends(signed_in)]

    @app.get("/")
    def label_page() -> Response:
        return page("label.html")

    @app.get("/project", response_model=None)
    def project_page() -> Response:
        return page("project.html")

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        return page(name)

    @app.post("/api/session")
    def sign_in(body: SignIn, request: Request) -> Response:
        known = (
            tokens.is_project(body.token)
            if body.page == "project"
            else tokens.labeler(body.token) is not None
        )
        if not known:
            raise Refused(403, "unknown link", "this link is not known here; ask for a new one")
        response = JSONResponse({"signed_in": True})
        response.set_cookie(
            cookies[body.page],
            body.token,
            max_age=COOKIE_DAYS * 86400,
            httponly=True,
            samesite="strict",
            secure=request.headers.get("origin", "").startswith("https://"),
        )
        return response

    @app.get("/api/me")
    def me(labeler: Labeler) -> dict[str, Any]:
        return {
            "labeler": labeler,
            "project": identity,
            "criteria": [{"name": n, "definition": DEFINITIONS[n]} for n in CRITERIA],
            "ask_ratings": project.rules.ask_ratings,
            "lease_seconds": project.rules.lease_seconds,
            **project.progress(labeler),
        }

    @app.post("/api/next")
    def next_page(labeler: Labeler) -> dict[str, Any]:
        item = project.next_page(labeler)
        return {"item": item, **project.progress(labeler)}

    @app.get("/api/mine")
    def mine(
        labeler: Labeler,
        saved: Annotated[float, Query(allow_inf_nan=False)] | None = None,
        key: Annotated[str, Query(max_length=64)] = "",
    ) -> dict[str, Any]:
        return project.mine(labeler, math.inf if saved is None else saved, key)

    @app.get("/api/items/{key}")
    def item_again(key: str, labeler: Labeler) -> dict[str, Any]:
        return {"item": project.page_again(labeler, key)}

    @app.post("/api/items/{key}/at-work")
    def at_work(key: str, labeler: Labeler) -> dict[str, Any]:
        return {"yours": project.still_at_work(labeler, key)}

    @app.post("/api/items/{key}/answer")
    def answer(key: str, body: Answer, labeler: Labeler) -> dict[str, Any]:
        saved, new = project.save(labeler, key, body)
        # Only here, behind the commit, does anybody say "saved".
        return {
            "saved": saved.saved,
            "revision": saved.revision,
            "new": new,
            **project.progress(labeler),
        }

    figures = app.state.figures = Figures(project, labelers)

    @app.get("/api/project", dependencies=[Depends(for_project)])
    def project_figures() -> dict[str, Any]:
        return figures.now()

    @app.get("/api/project/export", dependencies=[Depends(for_project)])
    def export() -> Response:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in split_rows(project)[0])
        return Response(
            text,
            media_type="application/jsonl",
            headers={"content-disposition": 'attachment; filename="rankings.jsonl"'},
        )

    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    """Every error is a short JSON object; none repeats what was sent."""

    def reply(status: int, kind: str, text: str) -> JSONResponse:
        return JSONResponse({"kind": kind, "error": text}, status)

    @app.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> JSONResponse:
        return reply(error.status, error.kind, error.text)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        fields = [str(e["loc"][-1])[:40] for e in error.errors()[:3] if e["loc"]]
        return reply(422, "invalid", f"not as a page of ours sends it: {', '.join(fields)}")

    @app.exception_handler(BadAnswer)
    def bad_answer(_: Request, error: BadAnswer) -> JSONResponse:
        return reply(422, "invalid", str(error))

    @app.exception_handler(NotYours)
    def not_yours(_: Request, error: NotYours) -> JSONResponse:
        return reply(410, "not yours", "this prompt has been given to somebody else")

    @app.exception_handler(sqlite3.Error)
    def not_saved(_: Request, error: sqlite3.Error) -> JSONResponse:
        # The disk is full, or gone: for whoever runs this to see. Pages try again by themselves.
        print(f"annotate: not saved: {error}", file=sys.stderr, flush=True)
        return reply(503, "not saved", "the server cannot save at the moment")

    @app.exception_handler(OtherContent)
    def other_content(_: Request, error: OtherContent) -> JSONResponse:
        return reply(409, "other content", "an answer with this id was saved before")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes any that is free.

    Raises:
        UserError: the port is taken, or not for this user, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise UserError(
            f"cannot listen on {host}, port {port}: {why}; choose another --port"
        ) from None
    listener.listen(128)
    return listener


def serve(app: FastAPI, listener: socket.socket, address: str, *, remote: bool) -> None:
    """Serves until SIGTERM or Ctrl-C; requests that are being answered are answered first.

    Args:
        address, remote: as `Guard` has them.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn ends in order, and then raises the signal again: that is no failure.
        signal.signal(number, lambda *_: sys.exit(0))
    uvicorn.Server(configuration(app, address, remote=remote)).run(sockets=[listener])


def configuration(app: FastAPI, address: str, *, remote: bool) -> uvicorn.Config:
    """How uvicorn serves; the arguments are those of `serve`."""
    return uvicorn.Config(
        Guard(app, address, remote=remote),
        # h11 limits the length of headers; httptools, where it is installed, does not.
        http=ImpatientProtocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        limit_concurrency=500,
        timeout_graceful_shutdown=10,
    )
