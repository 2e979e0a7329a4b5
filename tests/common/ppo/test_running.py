"""Running moments against all scores at once."""

import numpy as np
import pytest
import torch

from common.ppo.running import RunningMoments


def test_moments_are_those_of_all_scores_so_far():
    draw = np.random.default_rng(0)
    moments, seen = RunningMoments(), []
    for size, shift in ((1, 0.0), (5, 100.0), (64, -3.0), (7, 1e3)):
        part = draw.normal(shift, 2.0, size)
        seen += part.tolist()
        mean, std = moments.update(torch.tensor(part))
        assert mean == pytest.approx(np.mean(seen))
        assert std == pytest.approx(np.std(seen) if len(seen) > 1 else 1.0)


def test_they_go_on_from_a_checkpoint():
    one, other = RunningMoments(), RunningMoments()
    one.update(torch.tensor([1.0, 2.0, 4.0]))
    other.load_state_dict(one.state_dict())
    more = torch.tensor([8.0, 9.0])
    assert other.update(more) == one.update(more)


def test_scores_that_do_not_vary_are_only_centred():
    assert RunningMoments().update(torch.tensor([3.0, 3.0])) == (3.0, 1.0)
