"""Which responses are drawn already: distinct ones, redrawn up to a limit, over any ranks."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import step2_reward.samples as module
from common.errors import UserError
from step2_reward.samples import Samples

LENGTHS = [5, 3, 9, 4, 7]


class Ranks:
    """Several ranks as threads of one process, with the collectives that `Samples` uses."""

    def __init__(self, monkeypatch, count):
        self.count, self.own = count, threading.local()
        self.votes, self.barrier = [None] * count, threading.Barrier(count)
        monkeypatch.setattr(module, "rank", lambda: self.own.rank)
        monkeypatch.setattr(module, "world_size", lambda: count)
        monkeypatch.setattr(module, "gather_objects", self.gather)
        monkeypatch.setattr(module, "any_rank", lambda flag: any(self.gather(flag)))

    def gather(self, mine):
        self.votes[self.own.rank] = mine
        self.barrier.wait(60)
        found = list(self.votes)
        self.barrier.wait(60)
        return found

    def run(self, work):
        """What `work()` returns on each rank."""

        def on_rank(rank):
            self.own.rank = rank
            return work()

        with ThreadPoolExecutor(self.count) as pool:
            return [f.result() for f in [pool.submit(on_rank, r) for r in range(self.count)]]


def draw(samples, say, steps=10**6, width=4):
    """What a stage does on each rank; `say(prompt, stream, attempt)` is the model."""
    while samples.more() and steps:
        for prompt, stream in samples.take(width):
            text = say(prompt, stream, samples.attempt)
            samples.keep(prompt, {"text": text, "ended": True})
        steps -= 1
    return samples.merged(), samples.tally(), samples.state_dict()


def drawn_by(group, say, responses=3, redraws=2, **settings):
    """On all ranks: (texts by prompt, how many were drawn, how many empty), and the state."""
    found = group.run(lambda: draw(Samples(LENGTHS, responses, redraws), say, **settings))
    return as_texts(found), found[0][2]


def as_texts(found):
    merged, tally, _ = found[0]
    assert all(other[:2] == (merged, tally) for other in found)
    return {i: [r["text"] for r in kept] for i, kept in merged.items()}, *tally


def varied(prompt, stream, attempt):
    """A model that repeats itself and is silent at times, by its random numbers alone."""
    draw = (prompt * 7 + stream * 5 + attempt * 11) % 6
    return "" if draw == 0 else f"{prompt}: answer {draw // 2}"


def single(model, responses, redraws, lengths=LENGTHS):
    """The definition, prompt by prompt: what should be found, and how many drawn and empty."""
    found, drawn, empty = {}, {}, {}
    for i in range(len(lengths)):
        texts, draws, blanks = [], 0, 0
        for attempt in range(redraws + 1):
            for n in range(len(texts), responses):
                text = model(i, i * responses + n, attempt)
                draws += 1
                blanks += text == ""
                if text and text not in texts:
                    texts = [*texts, text]
        found[i], drawn[i], empty[i] = texts, draws, blanks
    return found, drawn, empty


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize(("responses", "redraws"), [(3, 2), (3, 0), (2, 5), (1, 1)])
def test_any_number_of_ranks_draws_what_one_does(monkeypatch, ranks, responses, redraws):
    """Also with more ranks than prompts, where some do the last one's work again."""
    found, _ = drawn_by(Ranks(monkeypatch, ranks), varied, responses, redraws)
    assert found == single(varied, responses, redraws)


def test_a_model_that_knows_one_answer_is_asked_up_to_the_limit(monkeypatch):
    found, _ = drawn_by(Ranks(monkeypatch, 1), lambda prompt, stream, attempt: "same")
    texts, draws, empty = found
    assert set(map(tuple, texts.values())) == {("same",)}
    assert set(draws.values()) == {3 + 2 + 2} and set(empty.values()) == {0}


def test_a_further_attempt_has_other_random_numbers_and_asks_for_what_is_missing(monkeypatch):
    asked = []

    def say(prompt, stream, attempt):
        asked.append((prompt, stream, attempt))
        return f"{stream % 3}" if stream % 3 < 2 else "0"  # the third repeats the first

    drawn_by(Ranks(monkeypatch, 1), say, redraws=1)
    assert len(set(asked)) == len(asked) == len(LENGTHS) * (3 + 1)
    assert {(stream - 3 * prompt, a) for prompt, stream, a in asked} == {
        *((n, 0) for n in range(3)),
        (2, 1),
    }


@pytest.mark.parametrize("before", [1, 3])
@pytest.mark.parametrize("after", [1, 2, 7])
@pytest.mark.parametrize("steps", [0, 1, 3, 5])
def test_drawing_goes_on_from_a_checkpoint_on_other_ranks(monkeypatch, before, after, steps):
    _, state = drawn_by(Ranks(monkeypatch, before), varied, steps=steps, width=2)
    state = json.loads(json.dumps(state))

    def go_on():
        samples = Samples(LENGTHS, 3, 2)
        samples.load_state_dict(state)
        return draw(samples, varied)

    assert as_texts(Ranks(monkeypatch, after).run(go_on)) == single(varied, 3, 2)


def test_a_checkpoint_of_the_version_that_counted_no_draws_is_refused_in_words():
    old = {"attempt": 0, "drawn": 1, "found": {"0": []}, "waiting": [[0, 1]]}
    with pytest.raises(UserError, match="begun by an older version.*start over"):
        Samples([3], 2, 1).load_state_dict(old)
