"""Files of right and wrong answers."""

import pytest
import torch

from common.data.template import Template
from common.errors import UserError
from common.reward.diagnostics import right_minus_wrong
from common.reward.probe import ProbeRow, probe_scores, read_probe
from tests.models import byte_tokenizer


def test_a_probe_is_optional_but_not_empty(tmp_path):
    file = tmp_path / "probe.jsonl"
    file.write_text('{"prompt": "q", "right": "yes", "wrong": "no"}\n')
    assert read_probe("") == [] and read_probe(str(file)) == [ProbeRow("q", "yes", "no")]
    file.write_text("\n")
    with pytest.raises(UserError, match=r"probe\.jsonl: there is not one row in it"):
        read_probe(str(file))


class CountsLetters(torch.nn.Module):
    """Scores a row by how many of its tokens are the byte "r"."""

    def __init__(self, token):
        super().__init__()
        self.token = token

    def forward(self, ids, mask, positions=None):
        return ((ids == self.token) & mask.bool()).cumsum(dim=1).float()


def test_right_answers_are_held_against_wrong_ones_to_the_same_prompts():
    template = Template(byte_tokenizer())
    *_, token, _ = template.encode_response("r")
    model = CountsLetters(token).train()
    rows = [ProbeRow("a", "rrrr", "no"), ProbeRow("b", "r", "rr"), ProbeRow("c", "rr", "")]
    right, wrong = probe_scores(model, template, rows, batch_size=2)
    base = wrong[2]  # of a prompt and the template
    assert (right - base).tolist() == [4, 1, 2] and (wrong - base).tolist() == [0, 2, 0]
    assert right_minus_wrong(right, wrong, deviation=0.5) == pytest.approx((7 - 2) / 3 / 0.5)
    assert model.training  # as it was
