"""Saved folders in a fresh process with stock classes only: the same text, scores and values."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.config.arguments import ModelArguments, SamplingArguments
from common.data.records import Message
from common.data.template import Template
from common.hybrid_engine.generation import sample_responses
from common.models.loading import load_causal_lm, load_tokenizer, save_model, separate_pad
from common.models.scalar import head_of, load_scalar_model
from common.reward.scoring import RewardScorer
from tests.models import byte_tokenizer, save_tiny, tiny_causal_lm

PLAIN = ModelArguments()
PROMPTS = ["May it run?", "Which policy does this ad violate?", "Hi"]
ANSWERS = ["Yes.", "It promises a cure that no one can prove.", "No, not at all"]

STRANGER = '''
"""Knows transformers and the folders; knows nothing of the project."""
import json
import sys

import torch
import transformers as hf

assert not any(name.split(".")[0] in ("common", "tests", "peft") for name in sys.modules)
job = json.load(open(sys.argv[1]))
found = {}
for name, (kind, folder) in job["folders"].items():
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    if kind == "causal":
        model = hf.AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer.padding_side = "left"
        batch = tokenizer.pad({"input_ids": job["prompts"]}, return_tensors="pt")
        out = model.generate(**batch, max_new_tokens=job["new"], do_sample=False)
        found[name] = out[:, batch["input_ids"].shape[1]:].tolist()
        continue
    tokenizer.padding_side = "right"
    batch = tokenizer.pad({"input_ids": job["rows"]}, return_tensors="pt")
    with torch.no_grad():
        if kind == "reward":
            model = hf.AutoModelForSequenceClassification.from_pretrained(folder).eval()
            assert model.config.num_labels == 1
            found[name] = model(**batch).logits[:, 0].tolist()
            assert tokenizer.pad_token_id == model.config.pad_token_id != tokenizer.eos_token_id
        elif kind == "critic":
            model = hf.AutoModelForTokenClassification.from_pretrained(folder).eval()
            assert model.config.num_labels == 1
            found[name] = model.train()(**batch).logits[:, :, 0].tolist()  # no dropout either way
        else:
            from safetensors.torch import load_file
            model = hf.AutoModel.from_pretrained(folder).eval()
            head = load_file(folder + "/value_head.safetensors")
            hidden = model(**batch).last_hidden_state
            values = torch.nn.functional.linear(hidden, head["score.weight"], head["score.bias"])
            found[name] = values[:, :, 0].tolist()
json.dump(found, open(sys.argv[2], "w"))
'''


def rows_of(template):
    """Prompt and response with its end token, as ids."""
    return [
        template.encode_prompt([Message("user", p)]) + template.encode_response(a)
        for p, a in zip(PROMPTS, ANSWERS, strict=True)
    ]


def save_talkative(folder, pad):
    """A Llama whose greedy text wanders, and whose answer to the first prompt ends.

    A random model with tied embeddings mostly says again what it said last.
    """
    tokenizer, model = byte_tokenizer(pad), tiny_causal_lm("llama")
    prompt = Template(tokenizer).encode_prompt([Message("user", PROMPTS[0])])
    model.config.tie_word_embeddings = False
    model.config.pad_token_id = tokenizer.pad_token_id
    weight = torch.randn(model.lm_head.weight.shape)
    model.lm_head.weight = torch.nn.Parameter(weight)
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        weight[[2, ids[-1]]] = weight[[ids[-1], 2]]  # what came sixth is now the end token
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def make_reward(base, folder):
    tokenizer = separate_pad(load_tokenizer(base))
    model = load_scalar_model(base, "reward", PLAIN, new_head=True, tokenizer=tokenizer)
    model.inner.config.score_mean, model.inner.config.score_std = 0.25, 1.5
    save_model(model.eval(), tokenizer, folder, "")
    template = Template(tokenizer)
    scorer = RewardScorer(model, template, template, 0.25, 1.5)
    prompts = [[Message("user", p)] for p in PROMPTS]
    return scorer.score_texts(prompts, ANSWERS, batch_size=2).tolist()


def make_critic(base, folder):
    tokenizer = load_tokenizer(base)
    model = load_scalar_model(base, "critic", PLAIN, new_head=True).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in head_of(model.inner).parameters():
            parameter.normal_()
    save_model(model, tokenizer, folder, "")
    values = []
    for row in rows_of(Template(tokenizer)):
        ids = torch.tensor([[0, 0, 0, *row]])  # padded on the left, as in a rollout
        mask = torch.tensor([[0, 0, 0, *[1] * len(row)]])
        with torch.no_grad():
            values.append(model(ids, mask)[0, 3:].tolist())
    return values


def make_causal(base, folder, new):
    tokenizer, model = load_tokenizer(base), load_causal_lm(base, PLAIN).eval()
    save_model(model, tokenizer, folder, "")
    template = Template(tokenizer)
    return sample_responses(
        model,
        [template.encode_prompt([Message("user", p)]) for p in PROMPTS],
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        max_new_tokens=new,
        sampling=SamplingArguments(),
        seed=0,
        greedy=True,
    ).response_ids()


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """By folder: what we got inside the run, and what a stranger's process got."""
    root = tmp_path_factory.mktemp("folders")
    llama = save_talkative(root / "base-llama", pad="<pad>")
    llama_eos = save_talkative(root / "base-llama-eos", pad="</s>")
    gpt2 = str(save_tiny(root / "base-gpt2", "gpt2", pad="</s>"))
    opt = str(save_tiny(root / "base-opt", "opt"))
    ours, folders = {}, {}
    for name, base in {"sft": llama, "actor": llama_eos, "sft gpt2": gpt2}.items():
        ours[name] = make_causal(base, root / name, new=12)
        folders[name] = "causal", str(root / name)
    for name, base in {
        "reward": llama,
        "reward pad=eos": llama_eos,
        "reward gpt2": gpt2,
        "reward opt": opt,
    }.items():
        ours[name] = make_reward(base, root / name)
        folders[name] = "reward", str(root / name)
    for name, base in {"critic": llama, "critic gpt2": gpt2, "critic opt": opt}.items():
        ours[name] = make_critic(base, root / name)
        folders[name] = ("backbone" if base == opt else "critic"), str(root / name)
    template = Template(load_tokenizer(llama))
    job = {
        "folders": folders,
        "prompts": [template.encode_prompt([Message("user", p)]) for p in PROMPTS],
        "rows": rows_of(template),
        "new": 12,
    }
    (root / "job.json").write_text(json.dumps(job))
    (root / "stranger.py").write_text(STRANGER)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "stranger.py", "job.json", "found.json"],
        cwd=root,
        env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return ours, json.loads(Path(root, "found.json").read_text())


@pytest.mark.parametrize("name", ["sft", "actor", "sft gpt2"])
def test_language_models_generate_the_same_tokens(seen, name):
    ours, theirs = seen[0][name], seen[1][name]
    for row, other in zip(ours, theirs, strict=True):
        assert other[: len(row)] == row
        assert set(other[len(row) :]) <= {0, 2}  # padding once the end token has come
        assert len(row) == 12 or row[-1] == 2
    assert len({token for row in ours for token in row}) >= 5  # no model of one word
    if name != "sft gpt2":
        assert len(ours[0]) <= 6 and ours[0][-1] == 2


@pytest.mark.parametrize("name", ["reward", "reward pad=eos", "reward gpt2", "reward opt"])
def test_reward_models_give_the_same_scores(seen, name):
    ours, theirs = seen[0][name], seen[1][name]
    assert theirs == pytest.approx(ours, abs=1e-4)
    assert max(ours) - min(ours) > 0.1


@pytest.mark.parametrize("name", ["critic", "critic gpt2", "critic opt"])
def test_critics_give_the_same_value_at_every_token(seen, name):
    for row, other in zip(seen[0][name], seen[1][name], strict=True):
        assert other[: len(row)] == pytest.approx(row, abs=1e-4)
        assert max(row) - min(row) > 0.1
