"""What every stage's `main` does around its own work: arguments, ranks, errors, exit codes."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from common.config.parsing import parse_arguments, resolved_settings, result_settings
from common.libraries import quiet_libraries
from common.training.distributed import world_size
from common.training.ending import leave, report, same_command, stop_at_once
from common.training.engine import process_group
from common.training.peak import import_late_modules
from common.training.peers import PEERS
from common.training.resume.arguments import how_to_start_over
from common.training.resume.signals import REQUESTS, STOP_CODE, Stopped
from common.training.seeding import seed_global
from common.training.stage import Finished, Stage
from common.zero.plan.arguments import STAGES, PlanArguments


def run_stage(
    name: str,
    types: Sequence[type],
    body: Callable[..., None],
    *,
    distributed: bool = True,
    section: str = "",
) -> None:
    """Parses arguments, brings up the ranks, runs `body(stage, *argument groups)`, ends cleanly.

    Without `distributed` the stage is a plain process, for stages that need no ranks. `section` is
    that of a pipeline file, where it is not the stage's own name. The first of
    `types` must be `RunArguments`. A stage that can be planned takes `PlanArguments`, too, and with
    `--dry_run true` only says what it would take. The process ends with code 0; with 2 after a
    `UserError`, which is printed without a traceback, once; with 75 when it was asked to stop and
    can go on; with 1 after any other error.
    """
    quiet_libraries()
    if distributed:
        REQUESTS.install()
    else:
        stop_at_once()
    try:
        planned = name in STAGES
        groups = parse_arguments((*types, PlanArguments) if planned else types, section or name)
        wishes = groups[-1] if planned else None
        groups = groups[: len(types)]
        if wishes and wishes.dry_run:
            if os.environ.get("RANK", "0") == "0":
                from common.zero.plan.run import dry_run

                print(dry_run(name, groups, wishes), flush=True)
            leave(0)
        settings = resolved_settings(*groups)
        seed_global(groups[0].seed, name)  # what libraries draw: adapters, their dropout
        minutes = groups[0].step_timeout
        with process_group(minutes) if distributed else contextlib.nullcontext():
            PEERS.watch(name, same_command())
            defaults = resolved_settings(*(kind() for kind in types))
            if planned:
                import_late_modules(settings.get("zero", "0") != "0" and world_size() > 1)
            stage = Stage(name, groups[0], settings, result_settings(*groups), defaults)
            if planned:
                stage.plan = functools.partial(_plan_of, name, groups)
            body(stage, *groups)
        code = 0
    except Finished as made:
        if os.environ.get("RANK", "0") == "0":
            where = f" ({made})" if str(made) else ""
            over = how_to_start_over(name)
            print(f"{name}: finished already{where}; to start over, {over}", flush=True)
        code = 0
    except Stopped:
        if os.environ.get("RANK", "0") == "0":
            print(f"{name}: stopped; {same_command()} goes on", flush=True)
        code = STOP_CODE
    except Exception as error:
        code = report(name, error)
    if not distributed:
        sys.exit(code)
    leave(code)


def _plan_of(name: str, groups: Sequence[Any]) -> Any:  # noqa: ANN401
    """The plan of the stage that has just run, made now: a plan imports much and takes seconds."""
    from common.zero.plan.run import plan_of

    return plan_of(name, groups, PlanArguments())
