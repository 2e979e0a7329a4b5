"""A plan in words."""

from collections.abc import Sequence

from common.zero.plan.advice import Lever, advise
from common.zero.plan.plans import LIBRARIES, Plan
from common.zero.plan.rates import COMPUTED, READ, SENT
from common.zero.plan.states import BUFFERS, CACHE, OPTIMIZER, WEIGHTS, size_of
from common.zero.plan.trace import ACTIVATIONS, GRADIENTS, LOGITS

COLUMNS = (WEIGHTS, GRADIENTS, OPTIMIZER, ACTIVATIONS, LOGITS, CACHE, BUFFERS, LIBRARIES)


def describe(plan: Plan) -> str:
    """The whole plan: memory by phase and kind, whether it fits, steps, time, communication."""
    job = plan.job
    lines = [f"{plan.stage}: plan for {job.machines}, nothing is begun"]
    zero = f", ZeRO-{job.zero.stage}" if "zero" in job.values else ""
    precision = "bf16" if job.dtype.itemsize == 2 else "fp32"
    lines.append(f"  {_models(plan)}; {precision}{zero}")
    lines += ["", *_table(plan), ""]
    free = job.machines.card.memory
    share = f"{_size(plan.peak)} of {_size(free)}"
    if plan.fits:
        lines.append(f"  It fits: at most {share} a rank, in {plan.worst}.")
    else:
        lines.append(f"  It does not fit: {share} a rank, in {plan.worst}.")
        lines += _advice(advise(plan))
    if plan.host:
        where = ", ".join(f"{k} {_size(v)}" for k, v in plan.host.items() if v)
        lines.append(f"  In the host's memory, for each rank: {where}.")
    if plan.host_loading:
        node = plan.host_loading * job.machines.ranks_per_node
        lines.append(f"  While models are read: {_size(node)} of each node's own memory.")
    lines += [f"  {line}" for line in _time(plan)]
    lines += [f"  Assumed: {text}." for text in plan.assumptions]
    return "\n".join(lines)


def one_line(plan: Plan) -> str:
    """For the end of a run: what was planned."""
    return f"{_size(plan.peak)} ({plan.worst})"


def _models(plan: Plan) -> str:
    parts = []
    for name, counts in plan.models.items():
        trained = counts.trained / max(counts.weights, 1)
        some = f" ({trained:.1%} trained)" if 0 < trained < 0.995 else ""
        parts.append(f"{name} {_number(counts.weights)} weights{some}")
    return ", ".join(parts)


def _table(plan: Plan) -> list[str]:
    used = [c for c in COLUMNS if any(p.get(c) for p in plan.phases.values())]
    width = max(len(name) for name in plan.phases)
    head = "".join(f"{c:>13}" for c in (*used, "all"))
    rows = [f"  {'GiB a rank':<{width}}{head}", f"  {'-' * (width + len(head))}"]
    for name, phase in plan.phases.items():
        numbers = [phase.get(c, 0) for c in used] + [size_of(phase)]
        cells = "".join(f"{_gib(n):>13}" for n in numbers)
        rows.append(f"  {name:<{width}}{cells}{'  <' if name == plan.worst else ''}")
    return rows


def _advice(found: Sequence[Lever]) -> list[str]:
    enough = [lever for lever in found if lever.fits]
    if enough:
        return ["  Any one of these makes it fit:"] + [
            f"    {lever.option:<32}{_size(lever.peak)}" for lever in enough
        ]
    if not found:
        return ["  No single setting is left that lowers it: more memory, or a smaller model."]
    return ["  No single setting makes it fit. Each alone would bring it to:"] + [
        f"    {lever.option:<32}{_size(lever.peak)}" for lever in found[:5]
    ]


def _time(plan: Plan) -> list[str]:
    machines, work = plan.job.machines, plan.unit
    seconds = work.seconds(machines)
    card = machines.card
    lines = [
        f"One {plan.unit_name}: {_number(work.tokens)} tokens, {_duration(seconds)}"
        + (f", {_size(int(work.sent_bytes))} sent by each rank" if machines.ranks > 1 else "")
        + "."
    ]
    if plan.units is None:
        lines.append(
            f"{plan.unit_name.capitalize()}s follow from the data ({plan.how_many}); give "
            "--plan_examples N for a total."
        )
    else:
        lines.append(
            f"All {plan.units} {plan.unit_name}s ({plan.how_many}): "
            f"{_number(work.tokens * plan.units)} tokens, {_duration(seconds * plan.units)}."
        )
    rate = f"{card.flops / 1e12:.0f} TFLOP/s" if card.is_gpu else f"{card.flops / 1e9:.0f} GFLOP/s"
    lines.append(
        f"Assumed: {COMPUTED:.0%} of {rate} in passes, {READ:.0%} of "
        f"{card.memory_rate / 1e9:.0f} GB/s in decoding, {SENT:.0%} of {machines.link / 1e9:.0f} "
        "GB/s between ranks, nothing at the same time as anything else; all rows as long as they "
        "may be."
    )
    return lines


def _size(count: int) -> str:
    if abs(count) < 2**30:
        return f"{count / 2**20:.0f} MiB"
    return f"{count / 2**30:.1f} GiB"


def _gib(count: int) -> str:
    if count == 0:
        return "."
    gib = count / 2**30
    return f"{gib:.1f}" if gib >= 9.95 else f"{gib:.2f}" if gib >= 0.1 else f"{gib:.3f}"


def _number(count: float) -> str:
    for limit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.2f}{name}"
    return f"{count:.0f}"


def _duration(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} hours"
    if seconds >= 120:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds:.1f} seconds" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"
