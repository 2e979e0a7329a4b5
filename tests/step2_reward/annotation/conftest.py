"""Projects without a server, and a server at which nobody ranks."""

from collections.abc import Iterator

import pytest

from common.files import write_json_lines
from step2_reward.annotation.items import read_items
from step2_reward.annotation.project import Project, Rules
from step2_reward.annotation.storage import Storage
from tests.step2_reward.annotation.projects import LENGTHS, Clock, write


@pytest.fixture(scope="module")
def quiet_server(tmp_path_factory) -> Iterator:
    """A project in which nobody ranks."""
    from tests.step2_reward.annotation.browsing import serve
    from tests.step2_reward.annotation.demo import rows

    with serve(tmp_path_factory.mktemp("quiet"), rows(2)) as server:
        yield server


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    made = []

    def project(count=4, gold=0, **rules):
        samples = read_items(write(tmp_path / "samples.jsonl", count, model="m"))
        golden = []
        if gold:
            file = tmp_path / "gold.jsonl"
            rows = [
                {"prompt": f"gold {i}", "responses": LENGTHS, "orders": [[0, 1, 2, 3, 4]]}
                for i in range(gold)
            ]
            write_json_lines(file, rows)
            golden = read_items(file, gold=True)
        storage = Storage(tmp_path / "labels.sqlite")
        made.append(storage)
        return Project(samples, golden, storage, Rules(**rules), clock=clock)

    yield project
    for storage in made:
        storage.close()
