"""What one base saves, measured for real; both sides are processes of their own."""

import json

import pytest

from tests.stages import finish, start


@pytest.mark.slow
def test_one_base_takes_less_than_45_percent_of_four_models_memory(tmp_path):
    finish(start("-m", "common.benchmark.one_base", "--run", str(tmp_path), "--responses", "4"))
    (row,) = json.loads((tmp_path / "one_base/rows.json").read_text())
    assert row["one_base_megabytes"] > 4 * 12 * (4 * 512**2 + 3 * 512 * 1280) / 2**20  # one base
    assert row["ratio"] == row["one_base_megabytes"] / row["separate_megabytes"] < 0.45
