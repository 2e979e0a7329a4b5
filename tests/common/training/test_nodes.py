"""What nodes are called."""

from common.training.nodes import Place, node_name, own_name


def test_a_process_by_itself_is_the_only_rank(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "CROSS_RANK", "CROSS_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Place.from_environment() == Place(0, 1, 0, 0, 1)
    for name, value in (("RANK", 5), ("WORLD_SIZE", 8), ("LOCAL_RANK", 1)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("CROSS_RANK", "2")
    monkeypatch.setenv("CROSS_SIZE", "4")
    assert Place.from_environment() == Place(5, 8, 1, 2, 4)


def test_names_come_from_the_hostfile(monkeypatch, tmp_path):
    monkeypatch.delenv("RLHF_HOSTFILE", raising=False)
    assert node_name(1) == "node 1" and own_name(1) not in ("", "node 1")
    (tmp_path / "hosts").write_text("# ours slots=1\n # c slots=1\na slots=8\nx y\n  b  slots=8\n")
    monkeypatch.setenv("RLHF_HOSTFILE", str(tmp_path / "hosts"))
    assert [node_name(i) for i in range(3)] == ["a", "b", "node 2"]
    assert own_name(1) == "b"
