"""A benchmark's rows from the Hugging Face hub, with the revision that they are of."""

import re
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.evaluation.benchmarks.catalogue import Benchmark
from common.evaluation.benchmarks.files import PARTS, words_of
from common.evaluation.benchmarks.forms import Form
from common.evaluation.benchmarks.local import Subset


def load_hub(benchmark: Benchmark, subtask: str, form: Form) -> tuple[Subset, str]:
    """One set's rows and its "name@revision".

    Raises:
        UserError: the hub cannot be reached or has no such data set; or its columns have changed.
    """
    import datasets

    path = benchmark.hub.format(subtask=subtask)
    config = benchmark.hub_config.format(subtask=subtask) or None
    try:
        parts = datasets.load_dataset(path, config)
    except Exception as error:  # its errors have no common class
        raise UserError(
            f"{benchmark.title}: {path} cannot be had from the hub ({error}); give a folder with "
            f"--data, where {benchmark.folders[0]}/ holds {form.expected}"
        ) from error
    subset = Subset()
    for name, rows in parts.items():
        part = next((PARTS[word] for word in words_of(name) if word in PARTS), name)
        for number, row in enumerate(rows, 1):
            converted = form.convert(row)
            if converted is None:
                raise UserError(
                    f"{path}: row {number} of its part '{name}' (columns {', '.join(row)}) is not "
                    f"as expected: {form.expected}; give local files with --data"
                )
            many = converted if isinstance(converted, list) else [converted]
            subset.parts.setdefault(part, []).extend(one for one in many if one)
            subset.unlabeled += sum(not one for one in many)
    return subset, f"{path}@{revision(parts)}"


def revision(parts: Any) -> str:  # noqa: ANN401
    """The commit of a loaded data set, 12 digits: the folder's name in the cache of `datasets`.

    Its `info` tells it for few sets only, as `download_checksums`.
    """
    for rows in parts.values():
        for file in rows.cache_files:
            folder = Path(file["filename"]).parent.name
            if re.fullmatch(r"[0-9a-f]{40}", folder):
                return folder[:12]
    return "unknown"
