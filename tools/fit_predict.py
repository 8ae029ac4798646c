"""What the cost model says of a published row, at any coefficients."""

from __future__ import annotations

from typing import NamedTuple

from gangline.plan.cost import (
    Step,
    Work,
    hidden_bytes,
    hop_seconds,
    prompt_steps,
    seconds,
    span_work,
    syncs_seconds,
    tensor_work,
)
from gangline.plan.engines import Fit, rates_of
from tools.fit_layout import KNOWN
from tools.published import Case


class Prepared(NamedTuple):
    """A case with all of it that no coefficient changes."""

    case: Case
    kind: str  # "decode", "cluster" (of several machines), "prefill"
    steps: tuple[Step, ...]
    works: tuple[Work, ...]  # of each step; of each machine where they share the matrices


def prepare(case: Case) -> Prepared:
    """Sum up the work of a case."""
    if case.metric == "prefill_tps":
        chunk = case.chunk or KNOWN[case.engine].prompt_rows
        steps = prompt_steps(case.rows, case.depth, chunk)
        kind = "prefill"
    else:
        steps = [Step(1, case.lanes, case.depth + case.rows / 2)]
        kind = "decode" if case.n_machines == 1 else "cluster"
    works = [
        tensor_work(case.model, case.n_machines, step)
        if case.parallel == "tensor"
        else span_work(case.model, 0, case.model.n_layers, step, True)
        for step in steps
    ]
    return Prepared(case, kind, tuple(steps), tuple(works))


def predict(prepared: Prepared, fit: Fit) -> float:
    """Tokens per second."""
    case = prepared.case
    rates = rates_of(case.machine, case.engine, case.bits, fit)
    engine = fit.engines[case.engine]
    times = []
    for step, work in zip(prepared.steps, prepared.works, strict=True):
        one = seconds(work, rates)
        if case.parallel == "tensor":
            assert case.link is not None
            one += syncs_seconds(case.model, case.n_machines, step, case.link, engine)
        elif case.parallel == "pipeline":
            assert case.link is not None
            hop = hop_seconds(hidden_bytes(case.model, step), case.link, engine)
            one += case.n_machines * hop
        times.append(one)
    total = sum(times)
    if prepared.kind == "prefill":
        if case.parallel == "pipeline" and case.link is not None and case.link.kind == "bus":
            total = total / case.n_machines + (case.n_machines - 1) * times[-1] / case.n_machines
        return case.rows / total
    return case.lanes / total
