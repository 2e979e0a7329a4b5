"""Recorded decode steps, on a recorder that does on a CPU what a CUDA graph does."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.config.arguments import SamplingArguments
from common.hybrid_engine import decoding, engine
from common.hybrid_engine.generation import CHECK_EVERY, sample_responses
from common.hybrid_engine.graphs import StepGraphs, cuda_recorder
from tests.common.hybrid_engine.test_generation import KINDS, MANY, often_ending

ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim")
"""Operations whose result the host must have before it can go on."""


class Tape(TorchDispatchMode):
    """Records every tensor operation with the very tensors it worked on.

    Playing runs the operations again on the same memory: whatever the host would have worked out
    anew, another tensor or another number, stays what it was when it was recorded. Operations that
    wait for the device are refused, choosing rows by a mask among them; `tolist` is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        name = func.overloadpacket.__name__
        tensors = [t for t in tree_leaves((args[1:], kwargs)) if isinstance(t, torch.Tensor)]
        by_mask = name.startswith("index") and any(t.dtype == torch.bool for t in tensors[:1])
        if name in ASKS or name == "lift_fresh" or by_mask:
            raise RuntimeError(f"{name}: the host and the device meet while a graph is recorded")
        results = func(*args, **(kwargs or {}))
        found = [t for t in tree_leaves(results) if isinstance(t, torch.Tensor)]
        inputs = {storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        new = [t if storage(t) not in inputs else None for t in found]
        self.operations.append((func, args, kwargs or {}, new))
        return results

    def play(self) -> None:
        for func, args, kwargs, new in self.operations:
            results = func(*args, **kwargs)
            found = [t for t in tree_leaves(results) if isinstance(t, torch.Tensor)]
            for kept, again in zip(new, found, strict=True):
                if kept is not None:  # views and what is changed in place are there already
                    kept.copy_(again)


def storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Recorder:
    """What `cuda_recorder` gives: recording has no effects on the loop's tensors, playing has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recorded = self.played = 0
        self.loop: Any = None
        original = decoding.DecodingLoop.__init__

        def noted(loop, *args, **kwargs):  # noqa: ANN001, ANN202
            original(loop, *args, **kwargs)
            self.loop = loop

        monkeypatch.setattr(decoding.DecodingLoop, "__init__", noted)

    def state(self) -> list[torch.Tensor]:
        own = [t for t in vars(self.loop).values() if isinstance(t, torch.Tensor)]
        return own + [b for layer in self.loop.cache.layers for b in (layer.keys, layer.values)]

    def __call__(self, step):  # noqa: ANN001, ANN204
        self.recorded += 1
        before = [t.clone() for t in self.state()]
        try:
            with Tape() as tape:
                step()
        finally:
            for tensor, old in zip(self.state(), before, strict=True):
                tensor.copy_(old)

        def play() -> None:
            self.played += 1
            tape.play()

        return play


SAMPLINGS = {
    "plain": SamplingArguments(generation_batch_size=7),
    "all at once": SamplingArguments(temperature=0.8, generation_batch_size=100),
    "filters": SamplingArguments(
        top_k=50,
        top_p=0.9,
        repetition_penalty=1.3,
        min_response_tokens=5,
        generation_batch_size=16,
    ),
}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_say_what_launched_ones_say(kind, sampling, monkeypatch):
    """Rows that end and come in, sizes that come up again, several widths of the cache."""
    monkeypatch.setattr(decoding, "WIDTH_STEP", 16)
    model, limit = often_ending(kind), 3 * CHECK_EVERY + 1
    settings = {"eos_id": 2, "pad_id": 0, "max_new_tokens": limit, "seed": 4}
    settings["sampling"] = SAMPLINGS[sampling]
    expected = sample_responses(model, MANY, **settings)
    record = Recorder(monkeypatch)
    found = sample_responses(model, MANY, record=record, **settings)
    assert found.response_ids() == expected.response_ids()
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=1e-4, atol=1e-5)
    assert record.recorded >= 2 and record.played > 3 * record.recorded


def test_greedy_steps_are_recorded_too(monkeypatch):
    model = often_ending("llama")
    settings = {"eos_id": 2, "pad_id": 0, "max_new_tokens": 20, "seed": 4, "greedy": True}
    settings["sampling"] = SamplingArguments(generation_batch_size=5)
    expected = sample_responses(model, MANY, **settings).response_ids()
    assert (
        sample_responses(model, MANY, record=Recorder(monkeypatch), **settings).response_ids()
        == expected
    )


@pytest.mark.parametrize(
    "question",
    [
        lambda logits: logits.sum().item(),
        lambda logits: bool((logits > 0).any()),
        lambda logits: logits[logits > 0],
        lambda logits: torch.tensor([1.0]),
    ],
)
def test_the_recorder_of_these_tests_refuses_what_a_card_refuses(question):
    logits = torch.randn(3, 4)
    with pytest.raises(RuntimeError, match="the host and the device meet"), Tape():
        question(logits)


def test_a_size_is_recorded_at_its_second_step_and_played_from_then_on():
    done = []
    graphs = StepGraphs(lambda step: lambda: done.append("played"))
    for size in ((8, 64), (8, 64), (8, 64), (16, 64), (8, 64), (16, 64)):
        graphs.run(*size, lambda size=size: done.append(("launched", *size)))
    assert done == [
        *(("launched", 8, 64), "played", "played"),
        *(("launched", 16, 64), "played", "played"),
    ]


@pytest.mark.parametrize("records", [False, True])
def test_nothing_of_a_rollout_lives_on(records, monkeypatch):
    """Neither cache nor recordings, though they know each other, until garbage is collected."""
    made = []
    original = decoding.DecodingLoop.__init__

    def noted(loop, *args, **kwargs):
        original(loop, *args, **kwargs)
        made.append(loop)

    monkeypatch.setattr(decoding.DecodingLoop, "__init__", noted)
    model = often_ending("llama")
    settings = {"eos_id": 2, "pad_id": 0, "max_new_tokens": 9, "seed": 4}
    kept = []

    def record(step):
        kept.append(weakref.ref(made[0].cache.layers[0].keys))
        kept.append(weakref.ref(step))
        return step

    gc.disable()
    try:
        sample_responses(
            model,
            MANY,
            sampling=SamplingArguments(),
            record=record if records else None,
            **settings,
        )
        loop = weakref.ref(made.pop())
        assert loop() is None
        assert all(reference() is None for reference in kept)
        assert bool(kept) == records
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:cuda_graphs")
@pytest.mark.parametrize(
    ("settings", "asked"),
    [({}, 0), ({"cuda_graphs": True}, 1), ({"cuda_graphs": True, "gather": "layers"}, 0)],
)
def test_steps_are_recorded_when_asked_for(settings, asked, monkeypatch):
    """Not where every forward is a collective."""
    calls = []
    monkeypatch.setattr(engine, "cuda_recorder", lambda: calls.append(1))
    rollouts = engine.HybridRollout(
        often_ending("llama"),
        SamplingArguments(),
        engine.RolloutArguments(**settings),
        eos_id=2,
        pad_id=0,
        max_new_tokens=5,
    )
    rollouts.respond([[1, 20]], 0)
    assert len(calls) == asked


def test_sizes_are_few():
    assert [decoding.rounded(n, 8, 60) for n in (1, 8, 9, 57, 60)] == [8, 8, 16, 60, 60]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a card")
def test_without_a_card_there_is_nothing_to_record_with():
    assert cuda_recorder() is None
    with pytest.warns(UserWarning, match="cuda_graphs: this machine has no CUDA card"):
        engine.RolloutArguments(cuda_graphs=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_cuda_graphs_say_what_launched_steps_say():
    model = often_ending("llama").cuda()
    settings = {"eos_id": 2, "pad_id": 0, "max_new_tokens": 25, "seed": 4}
    settings["sampling"] = SamplingArguments(generation_batch_size=7)
    expected = sample_responses(model, MANY, **settings)
    found = sample_responses(model, MANY, record=cuda_recorder(), **settings)
    assert found.response_ids() == expected.response_ids()
