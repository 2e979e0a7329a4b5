"""For all tests."""

import gc


def pytest_collection_finish() -> None:
    """What is there before the first test stays; no garbage collection need walk through it.

    It is the libraries, every test's code and parameters: a third of a second each time, and each
    stage that begins collects.
    """
    gc.collect()
    gc.freeze()
