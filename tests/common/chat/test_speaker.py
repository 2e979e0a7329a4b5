"""Answers of models and their scores; folders that are what they are not taken for."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from common.chat.session import Session
from common.chat.settings import ChatArguments, ChatSampling
from common.chat.speaker import Reply, folders_of, in_turn, load_all, short_names
from common.config.arguments import LoraArguments, ModelArguments
from common.data.records import Message
from common.errors import UserError
from common.models.loading import load_causal_lm, load_tokenizer, save_model
from tests.common.chat.models import save_run, session
from tests.models import byte_tokenizer, save_reward, save_tiny

PREAMBLE = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run"))


def test_a_runs_folder_brings_its_models(run):
    talk = session([run])
    assert talk.conversation.models == ["sft", "actor"]
    assert talk.judge.path.endswith("models/reward")
    assert folders_of([run], "mine")[1] == "mine"


def test_pieces_make_the_answer(run):
    talk = session([run])
    replies = talk.ask("Héllo?")
    texts = ["", ""]
    for number, piece in in_turn(replies):
        texts[number] += piece
    turn = talk.keep("Héllo?", replies)
    assert [t.strip() for t in texts] == turn.answers
    assert len(turn.answers[0]) > 3 and turn.answers[0] != turn.answers[1]


def test_the_answer_is_the_likeliest_continuation_of_the_papers_prompt(run):
    talk = session([run], temperature=0)
    (reply, _) = talk.ask("Hi")
    for _ in in_turn([reply]):
        pass
    ids = [1, *byte_tokenizer()(f"{PREAMBLE} ### USER: Hi ASSISTANT:").input_ids]
    expected: list[int] = []
    while len(expected) < 12 and 2 not in expected:
        with torch.no_grad():
            logits = reply.speaker.model(torch.tensor([ids + expected])).logits[0, -1]
        expected.append(int(logits.argmax()))
    assert reply.text == byte_tokenizer().decode(expected, skip_special_tokens=True).strip()
    assert reply.is_cut == (2 not in expected) and reply.ended == (2 in expected)


def test_the_score_is_the_stock_classes_in_deviations(run, tmp_path):
    folder = save_reward(tmp_path / "reward")
    stock = AutoModelForSequenceClassification.from_pretrained(folder)
    stock.config.score_mean, stock.config.score_std = 0.25, 2.0
    stock.save_pretrained(folder)
    talk = session([run], reward=folder)
    score = talk.judge.score([Message("user", "Hi")], "well")
    tokenizer = byte_tokenizer()
    ids = [1, *tokenizer(f"{PREAMBLE} ### USER: Hi ASSISTANT: well").input_ids, 2]
    with torch.no_grad():
        raw = float(stock.eval()(torch.tensor([ids])).logits)
    assert math.isclose(score, (raw - 0.25) / 2.0, rel_tol=1e-4)
    assert talk.judge.score([Message("user", "Hi" * 200)], "well") is None


def test_beyond_a_reward_models_table_of_positions_there_is_no_score_and_no_error(run, tmp_path):
    folder = save_tiny(tmp_path / "reward", "gpt2")
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    model.save_pretrained(folder)
    judge = session([run], reward=str(folder)).judge
    assert judge.score([Message("user", "Hi")], "well") is not None
    assert judge.score([Message("user", "Hi" * 200)], "well") is None


def test_draws_depend_on_seed_place_and_attempt(run):
    def answers(talk):
        replies = talk.ask("Hi")
        for _ in in_turn(replies):
            pass
        return talk.keep("Hi", replies).answers

    talk = session([run])

    def another(seed):
        return Session(talk.speakers, None, replace(talk.sampling, seed=seed), "")

    first, second = answers(talk), answers(talk)
    assert answers(another(seed=1)) == first != second
    assert answers(another(seed=2)) != first
    talk.reset()
    assert answers(talk) == first
    assert talk.undo().answers == first
    assert answers(talk) != first


def test_a_stopped_answer_stays_as_it_is(run):
    talk = session([run])
    replies = talk.ask("Hi")
    stream = in_turn(replies)
    for _ in range(4):
        next(stream)
    turn = talk.keep("Hi", replies)
    assert all(0 < r.tokens < 12 for r in replies)
    assert turn.answers == [r.text for r in replies]
    assert replies[0].advance() is None


def test_characters_of_several_tokens_come_whole(run, monkeypatch):
    talk = session([f"{run}/models/sft"])
    (reply,) = talk.ask("Hi")
    said = " Grüße, 日本! \U0001f600"
    reply._tokens = iter([*byte_tokenizer()(said).input_ids, 2])
    pieces = []
    while (piece := reply.advance()) is not None:
        pieces.append(piece)
    assert [p for p in pieces if p] == list(said.strip())
    assert reply.ended


def test_bytes_that_make_no_character_are_not_waited_for(run):
    talk = session([f"{run}/models/sft"])
    (reply,) = talk.ask("Hi")
    alone = byte_tokenizer()("日").input_ids[0]
    reply._tokens = iter([alone] * 20)
    pieces = [reply.advance() for _ in range(20)]
    assert "".join(pieces) != ""


@pytest.mark.slow
def test_adapters_talk_as_they_are_merged(run, tmp_path):
    base = f"{run}/models/sft"
    model = load_causal_lm(base, ModelArguments(), LoraArguments(lora_rank=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    save_model(model, load_tokenizer(base), tmp_path / "adapters", None)
    speakers, _ = load_all(ChatArguments(models=[str(tmp_path / "adapters"), base]))
    texts = []
    for speaker in speakers:
        reply = Reply(speaker, (Message("user", "Hi"),), ChatSampling(max_response_tokens=9), 0)
        for _ in in_turn([reply]):
            pass
        texts.append(reply.text)
    assert texts[0] != texts[1]


def test_models_of_another_kind_are_refused(run, tmp_path):
    reward, model = f"{run}/models/reward", f"{run}/models/sft"
    with pytest.raises(UserError, match=f"which cannot talk; use --reward {reward}"):
        load_all(ChatArguments(models=[reward]))
    with pytest.raises(UserError, match="not a reward model"):
        load_all(ChatArguments(models=[model], reward=model))
    with pytest.raises(UserError, match="no such model folder"):
        load_all(ChatArguments(models=[str(tmp_path / "nothing")]))
    (tmp_path / "models").mkdir()
    with pytest.raises(UserError, match="neither models/sft nor models/actor"):
        load_all(ChatArguments(models=[str(tmp_path)]))
    with pytest.raises(UserError, match="no model is named"):
        ChatArguments()
    save_tiny(tmp_path / "plain")
    with pytest.raises(UserError, match="has no chat template"):
        load_all(ChatArguments(models=[str(tmp_path / "plain")], template="chat"))


def test_names_tell_models_apart(tmp_path):
    paths = [tmp_path / a / "models" / b for a in "xy" for b in ("sft", "actor")]
    for path in paths:
        path.mkdir(parents=True)
    names = short_names([*map(str, paths), "owner/name"])
    assert names[:2] == ["x/models/sft", "x/models/actor"] and names[4] == "owner/name"
    assert short_names([str(paths[0]), str(paths[1])]) == ["sft", "actor"]
