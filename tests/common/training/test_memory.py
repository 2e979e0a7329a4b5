"""Out of memory, said in words that help."""

import pytest
import torch

from common.training.memory import is_out_of_memory, memory_message


def too_much() -> Exception:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    return caught.value


def test_torchs_own_error_is_recognised_and_how_much_it_asked_for():
    error = too_much()
    assert is_out_of_memory(error)
    text = memory_message(error, "step 3, rollout")
    assert text.startswith("out of memory at step 3, rollout: ")
    assert "GiB free) is not enough; it asked for 1125899906842624 bytes more" in text
    assert "generation_batch_size" in text and "--zero 3" in text


@pytest.mark.parametrize(
    ("place", "setting"),
    [
        ("step 3, scoring", "score_batch_size"),
        ("step 3, training", "micro_batch_size"),
        ("step 9", "micro_batch_size"),
        ("the evaluation after step 3", "eval_batch_size"),
        ("loading the reward model", "lora_rank"),
        ("start-up", "smaller batches"),
    ],
)
def test_each_phase_has_its_advice(place, setting):
    assert setting in memory_message(MemoryError(), place)


def test_what_is_no_lack_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
