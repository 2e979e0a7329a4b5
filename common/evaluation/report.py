"""`RUN/report.html`: what a run did, whether it is to be believed, and its answers to read.

    python -m common.evaluation.report RUN [RUN…] [--output FILE]

writes `RUN/summary.json` and `RUN/report.html`, one page that needs nothing else, from the files of
the run, finished or not, and prints the table SFT against RLHF. Of several runs it writes one page
that compares them, FILE, or `comparison.html` in the first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.evaluation.formatting import visible
from common.evaluation.page.build import report
from common.evaluation.page.compare import comparison
from common.evaluation.page.facts import read_facts
from common.evaluation.page.overview import left_out
from common.evaluation.summary import write_summary
from common.evaluation.terminal import terminal_table
from common.files import write_text

NAME = "report.html"
COMPARISON = "comparison.html"


def write_report(run: Path) -> tuple[dict[str, Any], Path]:
    """Writes the summary and the report of a run; gives the summary and the report's path.

    Raises:
        UserError: the run holds nothing that can be read. What is damaged is left out and named.
    """
    run = Path(run)
    summary, path, _ = _write(run)
    return summary, path


def _write(run: Path) -> tuple[dict[str, Any], Path, list[str]]:
    """As `write_report`; also what is left out of it, and what was odd in the files."""
    facts = read_facts(run)
    write_summary(run, facts.summary)
    write_text(run / NAME, report(facts))
    return facts.summary, run / NAME, left_out(facts)


def write_comparison(runs: Sequence[Path], output: Path) -> Path:
    """Writes one page on several runs; the others are held against the first.

    Raises:
        UserError: one of them holds nothing that can be read.
    """
    write_text(output, comparison([read_facts(Path(run)) for run in runs]))
    return output


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m common.evaluation.report", description=__doc__)
    parser.add_argument("run", type=Path, nargs="+", help="run directories")
    parser.add_argument("--output", type=Path, help="where the comparison of several runs goes")
    options = parser.parse_args(arguments)
    try:
        if len(options.run) > 1:
            output = options.output or options.run[0] / COMPARISON
            print(f"comparison: {write_comparison(options.run, output)}")
            return 0
        summary, path, odd = _write(options.run[0])
    except (UserError, OSError) as error:  # the latter: a full disk
        print(f"report: error: {error}", file=sys.stderr)
        return 2
    print(terminal_table(summary))
    for line in odd:
        print(f"report: {visible(line)}")
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
