"""Uploads: what is sent where; and a hub that fails costs nothing."""

import huggingface_hub
import pytest

from common.config.arguments import RunArguments
from common.errors import UserError
from common.files import write_json
from common.models.hub import hub_commit, push
from common.training.stage import Finished, Stage


class Hub:
    """Stands in for the hub's client, and notes what it is asked for."""

    calls: list

    def create_repo(self, name, **settings):
        self.calls.append(("create", name, settings))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        if repo_id.startswith("refused"):
            raise OSError("401 no token\nand more")
        self.calls.append(("upload", repo_id, str(folder_path)))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(Hub, "calls", [], raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub.calls


def finished(root, name, **settings):
    """A stage's end, with a model, and rows that are none, as its outputs."""
    folder = root / "models" / "sft"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("card")
    (root / "rows").mkdir()
    stage = Stage(name, RunArguments(run=str(root), **settings), {})
    stage.folder.mkdir()
    stage.finish({}, "done", outputs=[folder, root / "rows"])
    return stage


def test_models_are_uploaded_after_the_result_is_written(hub, tmp_path, capsys):
    stage = finished(tmp_path, "sft", push_to_hub=True, hub_name="me/ice")
    folder = str(tmp_path / "models" / "sft")
    expected = [
        ("create", "me/ice-sft", {"private": True, "exist_ok": True}),
        ("upload", "me/ice-sft", folder),
    ]
    assert hub == expected
    assert f"{folder} pushed to me/ice-sft" in capsys.readouterr().out
    write_json(stage.folder / "begun.json", {"settings": {}, "inputs": {}})
    with pytest.raises(Finished):
        stage.begin()  # done already; the upload is made up for
    assert hub == expected * 2


def test_nothing_is_uploaded_unasked(hub, tmp_path):
    finished(tmp_path, "sft")
    assert hub == []


def test_a_hub_that_refuses_costs_nothing(hub, tmp_path, capsys):
    finished(tmp_path, "sft", push_to_hub=True, hub_name="refused/ice")
    folder = tmp_path / "models" / "sft"
    message = push(folder, "refused/x", private=False)
    assert "401 no token" in message and "and more" not in message
    assert f"hf upload refused/x {folder}" in message
    assert (tmp_path / "sft" / "result.json").is_file()
    assert "was not pushed to refused/ice-sft" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", "ice", "a/b/c"])
def test_a_name_on_the_hub_has_an_owner(name):
    with pytest.raises(UserError, match="push_to_hub needs hub_name as owner/name"):
        RunArguments(push_to_hub=True, hub_name=name)


@pytest.mark.parametrize("file", ["config.json", "adapter_config.json"])
def test_the_commit_of_a_model_is_that_of_the_cache(tmp_path, monkeypatch, file):
    """The cache as the hub's client lays it out."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "a1b2" * 10
    folder = tmp_path / "models--me--small"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    assert hub_commit("me/small") == "unknown"
    (folder / "snapshots" / commit / file).write_text("{}")
    assert hub_commit("me/small") == commit
    assert hub_commit("me/other") == "unknown"
