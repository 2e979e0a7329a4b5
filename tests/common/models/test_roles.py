"""One base in four roles: what each answers, which weights a gradient reaches, what is saved."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.config.arguments import LoraArguments, ModelArguments, SamplingArguments, ZeroArguments
from common.errors import UserError
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.loading import (
    CONFIG_CHANGES,
    load_causal_lm,
    load_tokenizer,
    save_model,
    separate_pad,
)
from common.models.policy import PolicyModel, score_responses
from common.models.scalar import last_token_scores, load_scalar_model
from common.ppo.models import Wanted, load_one_base, load_separate
from common.reward.places import RewardPlace
from tests.models import save_tiny

KINDS = ["llama", "gpt2", "opt"]
PLAIN = ModelArguments()
LORA = LoraArguments(lora_rank=2, lora_alpha=8.0)
REWARD_LORA = LoraArguments(lora_rank=3)
IDS = torch.tensor([[0, 0, 1, 9, 30, 77, 8, 50, 2], [1, 4, 20, 8, 90, 31, 7, 2, 0]])
MASK = IDS > 0
WIDTH = 4


def randomized(model, seed):
    """Adapters that change something; fresh ones don't."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "adapters" in name or "score" in name or "classifier" in name:
                parameter.normal_(std=0.2)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(SFT model, reward model of adapters on it) by architecture."""
    root, found = tmp_path_factory.mktemp("models"), {}
    for kind in KINDS:
        sft = str(save_tiny(root / kind / "sft", kind))
        tokenizer = separate_pad(load_tokenizer(sft))
        reward = load_scalar_model(
            sft, "reward", PLAIN, new_head=True, tokenizer=tokenizer, lora=REWARD_LORA
        )
        randomized(reward, 1).inner.config.score_mean = 0.25
        save_model(reward, tokenizer, root / kind / "reward", "")
        found[kind] = sft, str(root / kind / "reward")
    return found


def load(how, sft, reward, settings=PLAIN, lora=LORA, critic_from="sft", **scale):
    """`scale`: mean, std and weight of the reward, as a setting gives them."""
    tokenizers, place = (load_tokenizer(sft), load_tokenizer(reward)), RewardPlace(reward, **scale)
    return how(
        Wanted(
            sft, place, critic_from, *tokenizers, settings, lora, ZeroArguments("0"), torch.float32
        )
    )


def both(sft, reward, **settings):
    """The four models on one base, and the same four with weights of their own."""
    shared = load(load_one_base, sft, reward, **settings)
    apart = load(load_separate, sft, reward, **settings)
    for ours, theirs, seed in ((shared.actor, apart.actor, 2), (shared.critic, apart.critic, 3)):
        randomized(ours, seed)
        copied = [p for n, p in theirs.named_parameters() if "lora_" in n]
        copied += [p for n, p in theirs.named_parameters() if p.requires_grad and "lora_" not in n]
        with torch.no_grad():
            for mine, other in zip(trained(ours), copied, strict=True):
                other.copy_(mine)
    return shared, apart


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def answers(models):
    return [
        score_responses(models.actor, IDS, MASK, WIDTH).logprobs,
        score_responses(models.reference, IDS, MASK, WIDTH).logprobs,
        models.critic(IDS, MASK)[MASK],
        last_token_scores(models.reward(IDS, MASK), MASK),
    ]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_separate_models(folders, kind, checkpointing):
    shared, apart = both(
        *folders[kind], settings=ModelArguments(gradient_checkpointing=checkpointing)
    )
    found = []
    for models in (shared, apart):
        for model in (models.actor, models.critic):
            model.train()
        logprobs, _, values, _ = outputs = answers(models)
        # Both graphs are there before either is gone back through, as in PPO.
        (logprobs * torch.linspace(-1, 2, WIDTH)).sum().backward()
        (values**2).sum().backward()
        found.append(([x.detach() for x in outputs], models))
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        assert ours.std() > 1e-3
        assert torch.allclose(ours, theirs, atol=1e-5)
    for role in ("actor", "critic"):
        mine, other = (trained(getattr(models, role)) for _, models in found)
        # An engine's order of parameters is a model's own: adapters are matched by their values.
        theirs = {tuple(p.detach().flatten().tolist()): p.grad for p in other}
        assert len(mine) == len(theirs)
        for parameter in mine:
            gradient = theirs[tuple(parameter.detach().flatten().tolist())]
            assert gradient.abs().max() > 1e-4
            assert torch.allclose(parameter.grad, gradient, atol=1e-5, rtol=1e-4)
    assert all(p.grad is None for p in shared.reward.parameters())
    assert all(
        p.grad is None
        for p in shared.actor.base.policy.inner.base_model.parameters()
        if not p.requires_grad
    )


def test_a_role_has_its_own_weights_only(folders):
    models = load(load_one_base, *folders["llama"])
    layers = 2 * 7  # of two blocks: q, k, v, o, gate, up, down
    assert len(list(models.actor.parameters())) == 2 * layers
    assert len(list(models.critic.parameters())) == 2 * layers + 2
    assert len(list(models.reward.parameters())) == 2 * layers + 1
    assert list(models.reference.parameters()) == []
    owners = [id(p) for m in models[:4] for p in m.parameters()]
    assert len(owners) == len(set(owners))
    assert all(p.requires_grad for m in (models.actor, models.critic) for p in m.parameters())
    base = models.actor.base
    assert {id(p) for p in base.parameters() if p.requires_grad} <= set(owners)


def test_a_call_leaves_no_role_switched_on(folders):
    models = load(load_one_base, *folders["llama"])
    randomized(models.actor, 2)
    base = models.actor.base
    before = score_responses(models.reference, IDS, MASK, WIDTH).logprobs
    with models.actor.acting():
        models.critic(IDS, MASK)
        inside = base.model(input_ids=IDS, attention_mask=MASK).logits
    outside = base.model(input_ids=IDS, attention_mask=MASK).logits
    assert not torch.allclose(inside, outside, atol=1e-3)
    assert torch.equal(score_responses(models.reference, IDS, MASK, WIDTH).logprobs, before)
    with pytest.raises(IndexError), models.actor.acting():
        base.model(input_ids=IDS + 10_000)
    assert torch.equal(base.model(input_ids=IDS, attention_mask=MASK).logits, outside)


def test_rollouts_keep_no_merged_copy_of_a_base_unless_asked_to(folders):
    models = load(load_one_base, *folders["llama"])
    weight = models.actor.inner.model.layers[0].mlp.up_proj.get_base_layer().weight
    randomized(models.actor, 2)
    plain, found, texts = weight.clone(), {}, []
    for choice in ("auto", "always", "never"):
        rollouts = HybridRollout(
            models.actor,
            SamplingArguments(),
            RolloutArguments(merge_adapters=choice),
            eos_id=2,
            pad_id=0,
            max_new_tokens=6,
        )
        seen = []
        hook = models.actor.inner.register_forward_pre_hook(
            lambda *_, seen=seen: seen.append(torch.equal(weight, plain))
        )
        texts.append(rollouts.respond([[1, 9, 30], [1, 77]], 0).response_ids())
        hook.remove()
        found[choice] = set(seen)
    assert found == {"auto": {True}, "always": {False}, "never": {True}}
    assert texts[0] == texts[1] == texts[2] and torch.equal(weight, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_roles_are_saved_as_adapters_that_come_back(folders, kind, tmp_path):
    sft, reward = folders[kind]
    models = load(load_one_base, sft, reward)
    randomized(models.actor, 2)
    randomized(models.critic, 3)
    expected = [x.detach() for x in answers(models)]
    for name in ("actor", "critic"):
        save_model(getattr(models, name), load_tokenizer(sft), tmp_path / name, "")
        assert not (tmp_path / name / "model.safetensors").exists()
    actor = PolicyModel(load_causal_lm(str(tmp_path / "actor"), PLAIN))
    critic = load_scalar_model(str(tmp_path / "critic"), "critic", PLAIN, new_head=False)
    logprobs = score_responses(actor, IDS, MASK, WIDTH).logprobs
    assert torch.allclose(logprobs, expected[0], atol=1e-5)
    assert torch.allclose(critic(IDS, MASK)[MASK], expected[2], atol=1e-5)


def test_a_critic_from_the_reward_model_starts_as_its_normalized_score(folders):
    models = load(load_one_base, *folders["llama"], critic_from="reward")
    scores = models.reward(IDS, MASK)[MASK]
    assert models.score_mean == 0.25
    assert torch.allclose(models.critic(IDS, MASK)[MASK], scores - 0.25, atol=1e-5)


@pytest.mark.parametrize("how", [load_separate, load_one_base])
def test_a_critic_from_the_reward_model_starts_as_what_its_scores_count(folders, how):
    scale = {"mean": 0.5, "std": 4.0, "weight": -2.0}
    models = load(how, *folders["llama"], critic_from="reward", **scale)
    with torch.no_grad():
        raw, values = models.reward(IDS, MASK)[MASK], models.critic(IDS, MASK)[MASK]
    assert raw.std() > 1e-3
    assert torch.allclose(values, -2.0 * (raw - 0.5) / 4.0, atol=1e-5)


@pytest.mark.parametrize("how", [load_separate, load_one_base])
def test_a_critic_needs_to_know_how_the_reward_models_scores_are_spread(folders, how, tmp_path):
    sft, known = folders["llama"]
    unknown = shutil.copytree(known, tmp_path / "unknown")
    noted = json.loads((unknown / CONFIG_CHANGES).read_text())
    del noted["score_mean"]
    (unknown / CONFIG_CHANGES).write_text(json.dumps(noted))
    assert load(how, sft, str(unknown)).score_mean is None
    with pytest.raises(UserError, match="unknown does not say the mean and deviation of its sco"):
        load(how, sft, str(unknown), critic_from="reward")
    load(how, sft, str(unknown), critic_from="reward", mean=0.0, std=1.0)


def test_what_cannot_be_one_base_is_refused(folders, tmp_path):
    sft, reward = folders["llama"]
    with pytest.raises(UserError, match="one_base needs adapters: set lora_rank"):
        load(load_one_base, sft, reward, lora=LoraArguments())
    whole = load_scalar_model(
        sft, "reward", PLAIN, new_head=True, tokenizer=separate_pad(load_tokenizer(sft))
    )
    save_model(whole, load_tokenizer(reward), tmp_path / "whole", "")
    with pytest.raises(UserError, match="whole is a whole model, but must be adapters on"):
        load(load_one_base, sft, str(tmp_path / "whole"))
    other = str(save_tiny(tmp_path / "other", "llama", seed=5))
    with pytest.raises(UserError, match="holds adapters on .*sft, which is not .*other"):
        load(load_one_base, other, reward)
    same = str(save_tiny(tmp_path / "moved", "llama"))  # equal weights in another place
    assert load(load_one_base, same, reward).score_mean == 0.25
    files = Path(reward) / "adapter_model.safetensors"
    weights = load_file(files)
    first = next(name for name in weights if "lora_A" in name)
    for change, message in (
        ({"base_model.model.score.weight": None}, "the weights of 'score' are not in its files"),
        ({first: None}, "its adapters are not those of a LlamaForCausalLM's layers"),
        ({first: weights[first][:-1]}, "its adapters are not those of a LlamaForCausalLM's layers"),
    ):
        shutil.copytree(reward, tmp_path / "damaged", dirs_exist_ok=True)
        kept = {k: v.clone() for k, v in (weights | change).items() if v is not None}
        save_file(kept, tmp_path / "damaged" / files.name)
        with pytest.raises(UserError, match=message):
            load(load_one_base, sft, str(tmp_path / "damaged"))
    actor = load_causal_lm(sft, PLAIN, LORA)
    save_model(actor, load_tokenizer(sft), tmp_path / "policy", "")
    with pytest.raises(UserError, match="have no head with one output"):
        load(load_one_base, sft, str(tmp_path / "policy"))
