"""What is read of a node."""

import hashlib
import shutil

from common.training.preflight import facts
from common.training.preflight.facts import (
    MISSING,
    Card,
    code_hashes,
    data_hashes,
    digest,
    gather_facts,
    mark,
    parse_cards,
    sees,
)


def test_source_files_are_hashed_and_nothing_else(tmp_path):
    for name in ("common/a.py", "common/zero/configs/3.json", "launch/x.sh", "step1_sft/main.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}")
    wanted = set(code_hashes(tmp_path))
    assert len(wanted) == 4
    for name in ("runs/a.py", ".venv/b.py", "common/__pycache__/a.pyc", "launch/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("other")
    found = code_hashes(tmp_path)
    assert set(found) == wanted
    expected = hashlib.sha256(b"# launch/x.sh").hexdigest()
    assert expected.startswith(found["launch/x.sh"])


def test_data_is_told_apart_by_content_alone(tmp_path):
    for name, text in (("a", "one"), ("b", "two"), ("same", "one")):
        (tmp_path / name).write_text(text)
    shutil.copystat(tmp_path / "a", tmp_path / "b")  # as long and as old
    paths = [str(tmp_path / name) for name in ("a", "b", "same", "nowhere")]
    a, b, same, nowhere = data_hashes(paths).values()
    assert a == same != b and nowhere == MISSING


def test_a_digest_sees_names_and_hashes():
    one = digest({"a": "1", "b": "2"})
    assert one == digest({"b": "2", "a": "1"}) and len(one) == 8
    assert len({one, digest({"a": "2", "b": "1"}), digest({"a": "1"}), digest({})}) == 4


def test_cards_as_nvidia_smi_lists_them():
    shown = "NVIDIA H100 80GB HBM3, 80995, 81559, 550.54\nNVIDIA L4, 1, 2, 550.54\n"
    cards = (Card("NVIDIA H100 80GB HBM3", 80995, 81559), Card("NVIDIA L4", 1, 2))
    assert parse_cards(shown) == (cards, "550.54")
    assert parse_cards("No devices were found\n") == ((), "")
    assert parse_cards("NVIDIA Thor, [N/A], [N/A], 580.0\n") == ((), "")


def test_a_folder_is_the_first_nodes_where_its_mark_is_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "SECONDS_TO_SHOW", 0.1)
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    with mark(here) as marked:
        assert sees(here, marked)
        assert not sees(there, marked) and not sees(tmp_path / "nowhere", marked)
        (there / marked["name"]).write_text("of another run")
        assert not sees(there, marked)
    assert list(here.iterdir()) == []
    with mark(tmp_path / "nowhere") as marked:
        assert "nothing can be written into" in marked["why_not"]


def test_this_machine(tmp_path):
    found = gather_facts("here", tmp_path, [])
    assert found.versions["torch"] and "common/training/preflight/facts.py" in found.code
    assert found.memory > 0 and found.disks[str(tmp_path)] > 0 and not found.elsewhere
    odd = gather_facts("here", tmp_path / "nowhere", [], shared=False)
    assert odd.elsewhere == str(tmp_path / "nowhere") not in odd.disks
