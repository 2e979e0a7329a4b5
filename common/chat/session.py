"""A chat's state: who talks, how answers are drawn, and what was said."""

from collections.abc import Sequence

from common.chat.conversation import Conversation, Turn
from common.chat.settings import ChatSampling
from common.chat.speaker import Judge, Reply, Speaker
from common.data.records import Message
from common.training.seeding import derive_seed


class Session:
    """Questions go to all speakers, each with its own history."""

    def __init__(
        self, speakers: Sequence[Speaker], judge: Judge | None, sampling: ChatSampling, system: str
    ) -> None:
        self.speakers = speakers
        self.judge = judge
        self.sampling = sampling
        self.conversation = Conversation([s.name for s in speakers], system)
        self.attempt = 0
        """How often the question at this place was asked before: each time has draws of its own."""

    def ask(self, question: str) -> list[Reply]:
        """Answers in the making, one a speaker; they share the seed of their draws.

        Raises:
            UserError: the question is too long for one of the models.
        """
        return [
            open_reply(
                speaker,
                self.conversation.messages(number, question),
                self.sampling,
                self.attempt,
            )
            for number, speaker in enumerate(self.speakers)
        ]

    def keep(self, question: str, replies: Sequence[Reply]) -> Turn:
        """Stops the answers where they are, has them scored, and takes them into the history."""
        for reply in replies:
            reply.stop()
        texts = [reply.text for reply in replies]
        scores = [
            self.judge.score(reply.fitted.messages, text) if self.judge else None
            for reply, text in zip(replies, texts, strict=True)
        ]
        turn = Turn(question, texts, scores)
        self.conversation.turns.append(turn)
        self.attempt = 0
        return turn

    def undo(self) -> Turn | None:
        """Takes back the last turn, and returns it; None where there is none."""
        if not self.conversation.turns:
            return None
        self.attempt += 1
        return self.conversation.turns.pop()

    def reset(self) -> None:
        """Forgets all turns."""
        self.conversation.turns.clear()
        self.attempt = 0


def open_reply(
    speaker: Speaker, messages: Sequence[Message], sampling: ChatSampling, attempt: int
) -> Reply:
    """An answer whose draws depend on the seed, its place in the conversation, and the attempt."""
    seed = derive_seed(sampling.seed, "chat", len(messages), attempt)
    return Reply(speaker, messages, sampling, seed)


def remark(reply: Reply, score: float | None, *, stopped: bool) -> str:
    """What is told below an answer: its score, length, and whether it is whole; perhaps nothing."""
    parts = [] if score is None else [f"reward {score:+.2f} deviations"]
    parts.append(f"{reply.tokens} token{'s' * (reply.tokens != 1)}")
    if stopped and not reply.ended:
        parts.append("stopped")
    elif reply.is_cut:
        parts.append("cut at its longest")
    if reply.fitted.left_out:
        turns = reply.fitted.left_out
        parts.append(
            f"the oldest {turns} turn{'s' * (turns != 1)} no longer fitted and are left out"
        )
    return ", ".join(parts)
