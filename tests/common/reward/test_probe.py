"""Files of right and wrong answers."""

import pytest

from common.errors import UserError
from common.reward.probe import ProbeRow, read_probe


def test_a_probe_is_optional_but_not_empty(tmp_path):
    file = tmp_path / "probe.jsonl"
    file.write_text('{"prompt": "q", "right": "yes", "wrong": "no"}\n')
    assert read_probe("") == [] and read_probe(str(file)) == [ProbeRow("q", "yes", "no")]
    file.write_text("\n")
    with pytest.raises(UserError, match=r"probe\.jsonl: there is not one row in it"):
        read_probe(str(file))
