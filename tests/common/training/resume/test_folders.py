"""Checkpoint folders: whole ones are found, and every kind of damage is."""

import random

import pytest

from common.errors import UserError
from common.training.resume import folders
from common.training.resume.folders import (
    BEST,
    LATEST,
    MANIFEST,
    Label,
    best_of,
    content_files,
    damage,
    file_fact,
    label_of,
    labels,
    partial_folder,
    prune,
    publish,
    read_manifest,
    remove,
    remove_partial,
    set_aside,
    write_manifest,
)


def make(root, label: Label, loss: float | None = None, size: int = 1000):
    """A whole checkpoint with three files of random bytes."""
    draw = random.Random(label.step)
    folder = partial_folder(root, label)
    for name in ("model/state/a.pt", "model/state/b.pt", "shared.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(draw.randbytes(size))
    files = {str(p): file_fact(folder / p, flush=True) for p in content_files(folder)}
    write_manifest(folder, files, {"step": label.step, "loss": loss})
    publish(root, label)
    return root / str(label)


def test_a_published_checkpoint_is_whole_and_the_latest(tmp_path):
    folder = make(tmp_path, Label(7))
    assert folder.name == "step_00000007" and damage(folder) is None
    assert (tmp_path / LATEST).read_text() == "step_00000007\n"
    assert labels(tmp_path) == [Label(7)]
    assert not list(tmp_path.glob(".*"))
    assert sorted(read_manifest(folder)["files"]) == [
        "model/state/a.pt",
        "model/state/b.pt",
        "shared.json",
    ]


def test_labels_sort_by_age_and_other_names_are_none():
    names = ["step_00000100_retry_2", "step_00000009", "step_100000000", "step_00000100"]
    assert [str(x) for x in sorted(map(label_of, names))] == [
        "step_00000009",
        "step_00000100",
        "step_00000100_retry_2",
        "step_100000000",
    ]
    for name in ("step_9", ".step_00000009.partial", "step_00000009.damaged", "best", "step_x"):
        assert label_of(name) is None


@pytest.mark.parametrize("seed", range(20))
def test_any_flipped_bit_is_found_and_named(tmp_path, seed):
    """In any file of the checkpoint, the manifest too."""
    folder = make(tmp_path, Label(1))
    draw = random.Random(seed)
    file = draw.choice([p for p in sorted(folder.rglob("*")) if p.is_file()])
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    assert damage(folder).startswith(str(file.relative_to(folder)))


@pytest.mark.parametrize("name", ["shared.json", "model/state/b.pt", MANIFEST])
@pytest.mark.parametrize("kept", [0, 1, 999])
def test_a_truncated_file_is_found_and_named(tmp_path, name, kept):
    folder = make(tmp_path, Label(1))
    file = folder / name
    file.write_bytes(file.read_bytes()[: min(kept, file.stat().st_size - 2)])
    assert name in damage(folder)


def test_a_missing_file_is_found_and_named(tmp_path):
    folder = make(tmp_path, Label(1))
    (folder / "shared.json").unlink()
    assert damage(folder) == "shared.json: No such file or directory"
    (folder / MANIFEST).unlink()
    assert damage(folder) == f"{MANIFEST}: No such file or directory"


def test_what_cannot_be_read_now_is_no_damage(tmp_path, monkeypatch):
    folder = make(tmp_path, Label(1))

    def fail(path, **more):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(folders, "file_fact", fail)
    with pytest.raises(OSError, match="Input/output error"):
        damage(folder)


def test_ranks_share_the_reading_and_together_miss_nothing(tmp_path):
    folder = make(tmp_path, Label(1))
    (folder / "shared.json").write_bytes(b"x")
    found = [damage(folder, part, 2) for part in range(2)]
    assert sorted(map(bool, found)) == [False, True]


def test_a_later_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "FORMAT", 99)
    folder = make(tmp_path, Label(1))
    monkeypatch.undo()
    with pytest.raises(UserError, match="its format is 99, but this version reads"):
        damage(folder)


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step, loss in ((1, 3.0), (2, 1.0), (3, None), (4, 2.0), (5, 1.5)):
        make(tmp_path, Label(step), loss)
    best = best_of(tmp_path, labels(tmp_path))
    assert best == Label(2)
    prune(tmp_path, 2, best)
    assert labels(tmp_path) == [Label(2), Label(4), Label(5)]
    assert (tmp_path / BEST).read_text() == "step_00000002\n"


def test_of_equally_good_ones_the_newest_is_best(tmp_path):
    for step in (1, 2, 3):
        make(tmp_path, Label(step), 1.0 if step < 3 else 2.0)
    assert best_of(tmp_path, labels(tmp_path)) == Label(2)


def test_without_an_evaluation_none_is_best(tmp_path):
    make(tmp_path, Label(1))
    assert best_of(tmp_path, labels(tmp_path)) is None
    prune(tmp_path, 1, None)
    assert labels(tmp_path) == [Label(1)] and not (tmp_path / BEST).exists()


def test_a_damaged_one_is_set_aside_until_the_next_is_whole(tmp_path):
    make(tmp_path, Label(1))
    make(tmp_path, Label(2))
    set_aside(tmp_path, Label(2))
    assert labels(tmp_path) == [Label(1)]
    assert (tmp_path / "step_00000002.damaged").is_dir()
    make(tmp_path, Label(2))
    prune(tmp_path, 2, None)
    assert labels(tmp_path) == [Label(1), Label(2)]
    assert not (tmp_path / "step_00000002.damaged").exists()


def test_what_killed_processes_left_is_no_checkpoint_and_goes(tmp_path):
    make(tmp_path, Label(1))
    half = partial_folder(tmp_path, Label(2))
    half.mkdir()
    (half / "shared.json").write_text("{")
    assert labels(tmp_path) == [Label(1)]
    remove_partial(tmp_path)
    assert not half.exists() and labels(tmp_path) == [Label(1)]


def test_one_of_the_same_name_is_replaced(tmp_path):
    make(tmp_path, Label(1), size=10)
    folder = make(tmp_path, Label(1), size=20)
    assert damage(folder) is None and (folder / "shared.json").stat().st_size == 20


def test_removing_is_by_name_first(tmp_path):
    make(tmp_path, Label(1))
    remove(tmp_path, Label(1))
    remove(tmp_path, Label(1))  # once more does no harm
    assert labels(tmp_path) == [] and [p.name for p in tmp_path.iterdir()] == [LATEST]
