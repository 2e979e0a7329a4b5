"""The chat on a terminal, a dumb one included, and through a pipe."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from common.chat.columns import Columns, width_for
from common.chat.conversation import Conversation, Turn
from common.chat.session import Session, remark
from common.chat.speaker import Reply, in_turn
from common.errors import UserError, nearest
from common.evaluation.formatting import visible

HELP = """\
  /set                show how answers are drawn
  /set NAME VALUE     change it: temperature, top_p, top_k, max_response_tokens, seed
  /retry              answer the last message anew, with other draws
  /undo               take the last message and its answers back
  /reset              forget the conversation
  /save FILE          write the conversation as JSON lines, a row a model
  /load FILE          go on with a conversation that was saved
  /help               this
  //…                 a message that begins with /
Ctrl-C stops an answer, Ctrl-D ends the chat."""
COMMANDS = ("set", "retry", "undo", "reset", "save", "load", "help")


class Terminal:
    """Reads messages and commands, and prints answers as they come."""

    def __init__(
        self, session: Session, source: TextIO, target: TextIO, aside: TextIO = sys.stderr
    ) -> None:
        """Args:
        aside: takes what is no answer where nobody types.
        """
        self.session = session
        self.aside = aside
        self.source = source
        self.target = target
        self.talks = source.isatty()
        """Whether somebody types: through a pipe there are neither prompts nor hints."""

    def run(self) -> bool:
        """Until the end of input; whether all messages were answered and all commands done."""
        if self.talks:
            self.say(f"{', '.join(self.session.conversation.models)}; /help tells what can be done")
        fine = True
        for line in self._lines():
            try:
                self._take(line)
            except UserError as error:
                fine = False
                self.say(f"error: {visible(str(error))}")
            except KeyboardInterrupt:  # while answers are scored, for one
                if not self.talks:
                    raise
                self.say("\n(Ctrl-D ends the chat)")
        return fine or self.talks

    def say(self, text: str) -> None:
        """A line of the chat's own; through a pipe, the answers alone go to the output."""
        print(text, file=self.target if self.talks else self.aside, flush=True)

    def _lines(self) -> Iterator[str]:
        """What is typed, a line at a time; Ctrl-C leaves a line, Ctrl-D ends."""
        if not self.talks:
            yield from self.source
            return
        if self.source is sys.stdin:
            import readline  # noqa: F401 - `input` edits lines, and remembers them, by it
        while True:
            try:
                yield input("> ")
            except EOFError:
                self.say("")
                return
            except KeyboardInterrupt:
                self.say("\n(Ctrl-D ends the chat)")

    def _take(self, line: str) -> None:
        text = line.strip()
        if text.startswith("/") and not text.startswith("//"):
            self._command(*text[1:].split(maxsplit=1))
        elif text:
            self._ask(text.removeprefix("/") if text.startswith("//") else text)

    def _command(self, name: str = "", rest: str = "") -> None:
        if name not in COMMANDS:
            raise UserError(f"there is no command '/{name}'{nearest(name, COMMANDS, '/')}")
        session = self.session
        if name in ("save", "load") and not rest:
            raise UserError(f"/{name} needs the name of a file")
        if name == "help":
            self.say(HELP)
        elif name == "set":
            self._set(rest.split())
        elif name == "reset":
            session.reset()
            self.say("(the conversation is forgotten)")
        elif name == "save":
            session.conversation.save(Path(rest))
            self.say(f"({counted(session.conversation.turns)} saved: {rest})")
        elif name == "load":
            session.conversation = Conversation.load(Path(rest), session.conversation.models)
            self.say(f"({counted(session.conversation.turns)} loaded)")
        else:
            turn = session.undo()
            if turn is None:
                raise UserError(f"/{name}: nothing has been said yet")
            if name == "undo":
                self.say(f"(taken back: {visible(turn.question)})")
                return
            before = len(session.conversation.turns)
            try:
                self._ask(turn.question)
            finally:
                if len(session.conversation.turns) == before:  # nothing new came
                    session.conversation.turns.append(turn)

    def _set(self, words: list[str]) -> None:
        if len(words) not in (0, 2):
            raise UserError("/set takes a name and a value, or nothing")
        if words:
            self.session.sampling = self.session.sampling.changed(*words)
        self.say(f"({self.session.sampling.line()})")

    def _ask(self, question: str) -> None:
        replies = self.session.ask(question)
        count = len(replies)
        terminal = shutil.get_terminal_size().columns if self.target.isatty() else 0
        width = width_for(count, terminal)
        stopped = False
        columns = Columns(count, width, self._write) if width else None
        if columns:
            columns.heads(self.session.conversation.models)
        try:
            if columns:
                for number, piece in in_turn(replies):
                    columns.add(number, visible(piece))
            else:
                for reply in replies:
                    self._head(reply, count)
                    for _, piece in in_turn([reply]):
                        self._write(visible(piece))
                    self._write("\n")
        except KeyboardInterrupt:
            if not self.talks:
                raise
            stopped = True
            if not columns:
                self._write("\n")
        if columns:
            columns.close()
        turn = self.session.keep(question, replies)
        for reply, score in zip(replies, turn.scores, strict=True):
            name = f"{reply.speaker.name}: " if count > 1 else ""
            self.say(f"({name}{remark(reply, score, stopped=stopped)})")

    def _head(self, reply: Reply, count: int) -> None:
        if count > 1:
            self._write(f"[{visible(reply.speaker.name)}]\n")

    def _write(self, text: str) -> None:
        self.target.write(text)
        self.target.flush()


def counted(turns: Sequence[Turn]) -> str:
    """ "1 turn", "2 turns"."""
    return f"{len(turns)} turn{'s' * (len(turns) != 1)}"


def encode_all(stream: Any) -> None:  # noqa: ANN401
    """A stream that cannot show a character shows its code: a chat must not end by that."""
    stream.reconfigure(errors="backslashreplace")
