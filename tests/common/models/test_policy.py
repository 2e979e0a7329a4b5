"""Log-probabilities of tokens: positions, padding, temperature, pieces, against loops."""

import math

import pytest
import torch
import torch.distributed as dist
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from common.config.arguments import LoraArguments, ModelArguments, OptimizerArguments, ZeroArguments
from common.models import policy
from common.models.loading import load_causal_lm
from common.models.logprobs import position_ids
from common.models.policy import PolicyModel, ScoringHead, score_responses
from common.training.engine import build_engine, process_group
from tests.models import save_tiny, tiny_causal_lm
from tests.ranks import run_ranks, shard_everything


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_each_token_is_scored_from_what_stands_before_it(kind):
    """Against one forward per token over the bare prefix: no cache, padding or slicing."""
    model = tiny_causal_lm(kind)
    prompt, response = [1, 9, 30, 77], [50, 60, 2]
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        scores = score_responses(model, ids, torch.ones_like(ids).bool(), 3, 0.8, entropy="value")
        for t, token in enumerate(response):
            logits = model(torch.tensor([prompt + response[:t]])).logits[0, -1].double() / 0.8
            expected = float(logits[token]) - math.log(sum(math.exp(x) for x in logits.tolist()))
            assert float(scores.logprobs[0, t]) == pytest.approx(expected, abs=1e-4)
    assert scores.logprobs.dtype == torch.float32


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("pad_id", [0, 2], ids=["pad", "pad=eos"])
def test_padding_changes_no_logprob(kind, pad_id):
    """Rotary models forgive wrong positions under left padding; GPT-2 does not."""
    model = tiny_causal_lm(kind)
    prompt, response = [1, 9, 30, 77, 8], [50, 60, 70, 2]
    bare = torch.tensor([prompt + response])
    with torch.no_grad():
        logits = model(bare).logits[0, 4:-1]  # of a stock forward, without padding or positions
        expected = logits.log_softmax(-1)[range(4), response]
        assert expected.std() > 0.1  # else the model could not tell right from wrong
        for left in range(0, 21):
            right = left % 3
            row = [pad_id] * left + prompt + response + [pad_id] * right
            mask = [False] * left + [True] * 9 + [False] * right
            found = score_responses(model, torch.tensor([row]), torch.tensor([mask]), 4 + right)
            assert torch.allclose(found.logprobs[0, :4], expected, atol=1e-5), left


IDS = torch.tensor([[1, 9, 30, 77, 8, 50], [1, 9, 31, 60, 0, 0]])
MASK = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
WANTED = torch.tensor(
    [[False, True, False, True, True, False], [False, False, True, True, False, False]]
)


def by_loops(model, temperature):
    """The wanted tokens' log-probabilities and entropies, one bare prefix each."""
    found = []
    for row, column in WANTED.nonzero().tolist():
        logits = model(IDS[row : row + 1, :column]).logits[0, -1].double() / temperature
        weights = [math.exp(float(x)) for x in logits]
        p = [w / sum(weights) for w in weights]
        found.append((math.log(p[int(IDS[row, column])]), -sum(q * math.log(q) for q in p)))
    return torch.tensor(found)


@pytest.mark.parametrize("most", [2**24, 259, 2 * 259])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "qwen2"])
def test_wanted_tokens_in_one_piece_or_many(kind, most):
    model = PolicyModel(tiny_causal_lm(kind), most)
    assert model.scores_in_head
    with torch.no_grad():
        expected = by_loops(model.model, 0.7)
        found = model(IDS, MASK, WANTED, temperature=0.7, entropy="value")
    torch.testing.assert_close(found.logprobs, expected[:, 0].float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.entropy, expected[:, 1].float(), rtol=1e-4, atol=1e-4)
    assert model(IDS, MASK, WANTED).entropy.tolist() == [0.0] * 5


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_pieces_have_the_gradient_of_the_whole(kind):
    weights = torch.tensor([0.3, -1.0, 2.0, 0.5, 1.5])
    gradients = []
    for most in (2**24, 2 * 259):
        model = PolicyModel(tiny_causal_lm(kind), most)
        (model(IDS, MASK, WANTED).logprobs * weights).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    plain = tiny_causal_lm(kind)
    logits = plain(IDS, attention_mask=MASK, position_ids=position_ids(MASK)).logits
    chosen = logits.log_softmax(-1)[:, :-1].gather(2, IDS[:, 1:, None]).squeeze(2)
    (chosen[WANTED[:, 1:]] * weights).sum().backward()
    expected = [p.grad for p in plain.parameters() if p.grad is not None]
    for found in gradients:
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_whole_batchs_logits_never_exist(monkeypatch):
    sizes = []
    original = policy.logit_scores

    def noted(logits, *args):
        sizes.append(len(logits))
        return original(logits, *args)

    monkeypatch.setattr(policy, "logit_scores", noted)
    model = PolicyModel(tiny_causal_lm("llama"), 3 * 259)
    model(IDS, MASK, WANTED).logprobs.sum().backward()
    assert sizes == [3, 2, 2, 3]  # five wanted tokens; the backward pass works them out again


SHAPE = {
    **{"vocab_size": 259, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0},
}


def granite():
    """Granite divides its logits behind the head."""
    torch.manual_seed(0)
    config = GraniteConfig(logits_scaling=0.2, **SHAPE)
    return GraniteForCausalLM(config).eval()


def test_models_that_change_their_logits_go_the_long_way():
    model = PolicyModel(granite())
    assert not model.scores_in_head
    with torch.no_grad():
        expected, found = by_loops(model.model, 0.7), model(IDS, MASK, WANTED, temperature=0.7)
    torch.testing.assert_close(found.logprobs, expected[:, 0].float(), rtol=1e-4, atol=1e-4)


def test_a_soft_cap_is_seen_though_fresh_logits_are_too_small_for_it():
    torch.manual_seed(0)
    config = Gemma2Config(head_dim=8, final_logit_softcapping=30.0, **SHAPE)
    stock = Gemma2ForCausalLM(config).eval()
    assert stock(IDS).logits.abs().max() < 1.0, "far below the cap"
    model = PolicyModel(stock)
    assert not model.scores_in_head and not stock.lm_head._forward_hooks
    with torch.no_grad():
        stock.lm_head.weight.mul_(2000.0)  # as a training may make them
        expected, found = by_loops(stock, 1.0), model(IDS, MASK, WANTED)
    torch.testing.assert_close(found.logprobs, expected[:, 0].float(), rtol=1e-4, atol=1e-3)
    config.final_logit_softcapping = None
    assert PolicyModel(Gemma2ForCausalLM(config).eval()).scores_in_head


def test_scoring_a_plain_model_leaves_the_size_of_pieces_that_its_training_has():
    model = tiny_causal_lm("llama")
    trained = PolicyModel(model, 1000)
    score_responses(model, IDS, MASK, 3)
    assert trained.model.lm_head.most_logits == 1000
    assert PolicyModel(tiny_causal_lm("llama")).model.lm_head.most_logits == policy.MOST_LOGITS


def test_a_scoring_head_still_gives_logits():
    model = tiny_causal_lm("llama")
    expected = model(IDS).logits
    PolicyModel(model)
    assert type(model.lm_head) is ScoringHead and torch.equal(model(IDS).logits, expected)


def gradients_on_ranks(folder, lora):
    """Under ZeRO-3, with ranks that need different numbers of pieces."""
    from deepspeed.utils import safe_get_full_grad

    shard_everything()
    with process_group():
        rank = dist.get_rank()
        torch.manual_seed(7)
        engine = build_engine(
            PolicyModel(load_causal_lm(folder, ModelArguments(), lora), 2 * 259),
            zero=ZeroArguments("3"),
            dtype=torch.float32,
            optimizer=OptimizerArguments(batch_size=2, micro_batch_size=1),
            total_steps=2,
        )
        engine.train()
        row = slice(rank, rank + 1)
        scores = engine(IDS[row], MASK[row], WANTED[row])
        engine.backward(scores.logprobs.sum() * 2)  # DeepSpeed divides by the ranks
        return {n: safe_get_full_grad(p) for n, p in engine.module.named_parameters()}


@pytest.mark.parametrize("rank", [0, 2], ids=["whole", "lora"])
def test_sharded_gradients_are_those_of_one_process(tmp_path, rank):
    folder, lora = str(save_tiny(tmp_path / "m")), LoraArguments(lora_rank=rank)
    found = run_ranks(gradients_on_ranks, 2, folder, lora, start_group=False)
    torch.manual_seed(7)
    model = PolicyModel(load_causal_lm(folder, ModelArguments(), lora))
    model(IDS, MASK, WANTED).logprobs.sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            for per_rank in found:
                torch.testing.assert_close(
                    per_rank[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name
                )


def bytes_kept(model):
    """What a forward keeps for its backward pass, weights left out."""
    weights = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(IDS, MASK, WANTED).logprobs.sum().backward()
    return sum(kept.values())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("rank", [0, 2], ids=["whole", "lora"])
def test_checkpointing_keeps_less_and_has_the_same_gradient(kind, rank, tmp_path):
    save_tiny(tmp_path, kind)
    found = []
    for checkpointing in (False, True):
        settings = ModelArguments(gradient_checkpointing=checkpointing)
        torch.manual_seed(3)
        lora = LoraArguments(lora_rank=rank)
        model = PolicyModel(load_causal_lm(str(tmp_path), settings, lora)).train()
        kept = bytes_kept(model)
        found.append((kept, [p.grad for p in model.parameters() if p.grad is not None]))
    (plain, gradients), (checkpointed, same) = found
    assert checkpointed < 0.6 * plain
    for a, b in zip(gradients, same, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
