"""Fit what engines reach of a machine's specification to published measurements.

    python -m tools.fit_engines                 print the residuals, leave one source out
    python -m tools.fit_engines --write         and write src/gangline/plan/catalog/engines.toml
    python -m tools.fit_engines --judge FILE    how well the written file predicts other rows

A few factors, all positive, multiply: of an engine, a class of hardware, a chip. Each has a prior
around 1 whose width says how much it may differ, so that a factor with few rows stays near the
average of the others (partial pooling). The sum of squared, Huber-weighted log errors and priors is
minimized with Levenberg-Marquardt. Needs NumPy.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

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
from gangline.plan.engines import (
    ENGINES,
    ChipFit,
    ClassFit,
    Common,
    EngineFit,
    ErrorFit,
    Fit,
    chip_key,
    class_of,
    published_fit,
    rates_of,
)
from tools.published import DATA, Case, cases_of, read_rows

TARGET = Path(__file__).parents[1] / "src" / "gangline" / "plan" / "catalog" / "engines.toml"
SIGMA = {"decode": 0.10, "cluster": 0.14, "prefill": 0.22}  # log error expected of a good row
HUBER = 1.5  # standard deviations beyond which a row pulls no harder
QUANTILE = 0.8  # of the errors that a prediction carries


class Prior(NamedTuple):
    """What is believed of a factor before any row: around `mean`, within a factor exp(`width`)."""

    mean: float
    width: float


# Values of all engines and classes together.
COMMON_PRIORS = {
    "bandwidth_share": Prior(0.75, 0.3),
    "operation_us": Prior(4.0, 1.0),
    "compute_share": Prior(0.6, 0.5),
    "cache_share": Prior(0.8, 0.3),
    "expert_share": Prior(0.9, 0.15),
    "dense16_share": Prior(1.05, 0.07),
    "compute_power": Prior(0.85, 0.1),
    "attention_share": Prior(0.4, 0.5),
    "expert_rows": Prior(16.0, 0.7),
    "compute16_factor": Prior(1.0, 0.2),
    "expert16_factor": Prior(0.8, 0.5),
    "hop_us": Prior(150.0, 1.0),
    "sync_us": Prior(80.0, 1.0),
}
CLASS_WIDTHS = {
    "bandwidth_share": 0.25, "operation_us": 1.2, "compute_share": 0.5, "compute_power": 0.15,
}  # fmt: skip
# A kind of another class differs from that, and by less.
PARENTS = {
    "apple-ultra": "apple", "nvidia-workstation": "nvidia", "nvidia-datacenter": "nvidia",
    "amd-datacenter": "amd",
}  # fmt: skip
UNSEEN = {"intel", "amd-datacenter"}  # classes of the catalogue that nobody published
CHILD_SHARE = 0.5  # of the widths
ENGINE_WIDTHS = {
    "bandwidth_factor": 0.12, "operation_factor": 0.4, "compute_factor": 0.3,
    "hop_us": 1.5, "sync_us": 0.8,
}  # fmt: skip
CHIP_WIDTHS = {"bandwidth_factor": 0.08, "compute_factor": 0.25}

# Measured here, not fitted: a hop of ours on loopback (docs/log.md), whose round trip is 20 us.
OURS = EngineFit(hop_us=90.0, sync_us=90.0, shares=False, overlaps_prompt=True, prompt_rows=256)
KNOWN = {
    "ours": OURS,
    "llama.cpp": EngineFit(shares=False),
    "distributed-llama": EngineFit(fan_out=True, pipelines=False),
}


class Prepared(NamedTuple):
    """A case with all of it that no coefficient changes."""

    case: Case
    kind: str  # a key of SIGMA
    steps: tuple[Step, ...]
    works: tuple[Work, ...]  # of each step; of each machine where they share the matrices


def prepare(case: Case) -> Prepared:
    """Sum up the work of a case."""
    if case.metric == "prefill_tps":
        steps = prompt_steps(case.rows, case.depth, case.chunk)
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


class Layout:
    """Which numbers are fitted, and what is believed of each."""

    def __init__(self, prepared: Iterable[Prepared]) -> None:
        cases = [one.case for one in prepared]
        found = {class_of(c.machine.chip, c.machine.kind) for c in cases}
        self.classes = sorted(found | {PARENTS[one] for one in found if one in PARENTS} | UNSEEN)
        self.engines = sorted({c.engine for c in cases} | {"ours"})
        self.chips = sorted({chip_key(c.machine.chip) for c in cases})
        self.keys: list[tuple[str, str, str]] = []
        means, widths = [], []
        for field, prior in COMMON_PRIORS.items():
            self._add(("common", "", field), means, widths, math.log(prior.mean), prior.width)
        for group, names, table in (
            ("class", self.classes, CLASS_WIDTHS),
            ("engine", self.engines, ENGINE_WIDTHS),
            ("chip", self.chips, CHIP_WIDTHS),
        ):
            for name in names:
                for field, width in table.items():
                    if name != "ours":
                        width *= CHILD_SHARE if name in PARENTS else 1.0
                        self._add((group, name, field), means, widths, 0.0, width)
        self.means, self.widths = np.array(means), np.array(widths)

    def _add(
        self,
        key: tuple[str, str, str],
        means: list[float],
        widths: list[float],
        mean: float,
        width: float,
    ) -> None:
        self.keys.append(key)
        means.append(mean)
        widths.append(width)

    def fit_of(self, theta: np.ndarray) -> Fit:
        """The coefficients that a vector of logarithms stands for."""
        value = dict(zip(self.keys, np.exp(theta).tolist(), strict=True))

        def common(field: str) -> float:
            return value["common", "", field]

        def of_class(name: str, field: str) -> float:
            parent = PARENTS.get(name)
            above = common(field) if parent is None else of_class(parent, field)
            return above * value["class", name, field]

        classes = {
            name: ClassFit(**{f: of_class(name, f) for f in CLASS_WIDTHS}) for name in self.classes
        }
        engines = dict(KNOWN)
        for name in ENGINES:
            if name == "ours":
                continue
            given = {f: value.get(("engine", name, f), 1.0) for f in ENGINE_WIDTHS}
            for field in ("hop_us", "sync_us"):
                given[field] *= common(field)
            known = KNOWN.get(name, EngineFit())
            engines[name] = msgspec.structs.replace(known, **given)
        chips = {
            name: ChipFit(**{f: value["chip", name, f] for f in CHIP_WIDTHS}) for name in self.chips
        }
        fields = {f: common(f) for f in Common.__struct_fields__}
        return Fit(Common(**fields), classes, engines, chips, {})


def solve(prepared: list[Prepared], layout: Layout, start: np.ndarray, rounds: int) -> np.ndarray:
    """The most probable logarithms of all factors."""
    sigma = np.array([SIGMA[one.kind] * (1 + one.case.dated) for one in prepared])
    measured = np.log([one.case.value for one in prepared])

    def errors(theta: np.ndarray) -> np.ndarray:
        fit = layout.fit_of(theta)
        return (np.log([predict(one, fit) for one in prepared]) - measured) / sigma

    def loss(residuals: np.ndarray, theta: np.ndarray) -> float:
        size = np.abs(residuals)
        huber = np.where(size < HUBER, size**2, 2 * HUBER * size - HUBER**2)
        return float(huber.sum() + (((theta - layout.means) / layout.widths) ** 2).sum())

    theta, damping = start.copy(), 1e-2
    residuals = errors(theta)
    for _ in range(rounds):
        jacobian = np.empty((len(prepared), len(theta)))
        for i in range(len(theta)):
            moved = theta.copy()
            moved[i] += 1e-4
            jacobian[:, i] = (errors(moved) - residuals) / 1e-4
        weights = np.minimum(1.0, HUBER / np.maximum(np.abs(residuals), 1e-9))
        normal = jacobian.T @ (jacobian * weights[:, None]) + np.diag(layout.widths**-2.0)
        slope = jacobian.T @ (weights * residuals) + (theta - layout.means) / layout.widths**2
        before = loss(residuals, theta)
        for _ in range(8):
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope)
            tried = theta + np.clip(step, -1.0, 1.0)
            new = errors(tried)
            if loss(new, tried) < before:
                damping = max(damping / 5, 1e-6)
                break
            damping *= 4
        else:
            break
        theta, residuals = tried, new
        if before - loss(residuals, theta) < 1e-4 * before:
            break
    return theta


class Outcome(NamedTuple):
    """A row, and what was predicted of it without its source."""

    prepared: Prepared
    predicted: float

    @property
    def error(self) -> float:
        return abs(self.predicted / self.prepared.case.value - 1)


def cross_validate(
    prepared: list[Prepared], layout: Layout, theta: np.ndarray, note: Callable[[str], None]
) -> list[Outcome]:
    """Predict each source's rows from all the other sources."""
    outcomes = []
    for source in sorted({one.case.source for one in prepared}):
        rest = [one for one in prepared if one.case.source != source]
        held = [one for one in prepared if one.case.source == source]
        note(f"without {source} ({len(held)} rows)")
        fit = layout.fit_of(solve(rest, layout, theta, 6))
        outcomes += [Outcome(one, predict(one, fit)) for one in held]
    return outcomes


def quantile(errors: list[float], share: float) -> float:
    """The error that `share` of the rows stay below."""
    return float(np.quantile(errors, share)) if errors else math.nan


def table(outcomes: list[Outcome], by: Callable[[Outcome], tuple[str, ...]]) -> list[str]:
    """Median and 90th percentile of groups of rows."""
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for outcome in outcomes:
        groups[by(outcome)].append(outcome.error)
    lines = []
    for name, errors in sorted(groups.items()):
        label = "  ".join(name)
        middle, most = quantile(errors, 0.5), quantile(errors, 0.9)
        lines.append(f"{label:<72} {len(errors):>4} {middle:>7.1%} {most:>7.1%}")
    return lines


def report(outcomes: list[Outcome], rows: bool) -> None:
    """Print the residuals."""
    if rows:
        for one in sorted(outcomes, key=lambda o: (o.prepared.kind, o.prepared.case.id)):
            case = one.prepared.case
            print(
                f"{one.prepared.kind:<8} {case.id:<12} {case.engine:<18} {case.name:<58} "
                f"{case.value:>9.2f} {one.predicted:>9.2f} {one.predicted / case.value - 1:>+7.0%}"
            )
        print()
    head = f"{'':<72} {'rows':>4} {'median':>7} {'90 %':>7}"
    dated = [one for one in outcomes if one.prepared.case.dated]
    print(head, *table(dated, lambda o: (o.prepared.kind, "of Ollama's time, apart")), sep="\n")
    outcomes = [one for one in outcomes if not one.prepared.case.dated]
    for by in (
        lambda o: (o.prepared.kind,),
        lambda o: (o.prepared.kind, o.prepared.case.engine),
        lambda o: (o.prepared.kind, o.prepared.case.engine, o.prepared.case.source),
    ):
        print(head, *table(outcomes, by), "", sep="\n")


def errors_of(outcomes: list[Outcome]) -> dict[str, ErrorFit]:
    """The error that each engine's predictions carry; few rows borrow from all of them."""
    found = {}
    for engine in ENGINES:
        values = {}
        for kind in SIGMA:
            outcomes = [o for o in outcomes if not o.prepared.case.dated]
            pool = [o.error for o in outcomes if o.prepared.kind == kind]
            own = [
                o.error
                for o in outcomes
                if o.prepared.kind == kind and o.prepared.case.engine == engine
            ]
            weight = len(own) / (len(own) + 5)
            average = quantile(pool, QUANTILE)
            values[kind] = (
                weight * quantile(own, QUANTILE) + (1 - weight) * average if own else average
            )
        found[engine] = ErrorFit(**{kind: round(value, 3) for kind, value in values.items()})
    return found


def toml_of(fit: Fit, n_rows: int) -> str:
    """`engines.toml`."""
    lines = [
        "# Written by tools/fit_engines.py from tools/data/published.csv "
        f"({n_rows} rows). Do not edit: run it again.",
        "# docs/planner.md says what each coefficient means.",
    ]

    def section(name: str, value: msgspec.Struct) -> None:
        lines.extend(["", f"[{name}]"])
        for field in value.__struct_fields__:
            number = getattr(value, field)
            text = str(number).lower() if isinstance(number, bool | int) else f"{number:.4g}"
            if isinstance(number, float) and not any(c in text for c in ".e"):
                text += ".0"
            lines.append(f"{field} = {text}")

    section("common", fit.common)
    for group in ("classes", "engines", "chips", "errors"):
        for name, value in getattr(fit, group).items():
            section(f'{group}."{name}"', value)
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="the published rows")
    parser.add_argument("--report", action="store_true", help="the residuals of each row as well")
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.name}")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="rows to predict, not to fit")
    options = parser.parse_args()
    cases, left_out = cases_of(read_rows(options.judge or options.data))
    prepared = [prepare(case) for case in cases]
    for reason, ids in left_out.items():
        print(f"left out, {reason}: {' '.join(ids)}")
    print()
    if options.judge:
        report([Outcome(one, predict(one, published_fit())) for one in prepared], True)
        return 0
    layout = Layout(prepared)
    theta = solve(prepared, layout, layout.means, 25)
    outcomes = cross_validate(prepared, layout, theta, lambda text: print(text, file=sys.stderr))
    print("leave one source out\n")
    report(outcomes, options.report)
    fitted = layout.fit_of(theta)
    print("with all sources\n")
    report([Outcome(one, predict(one, fitted)) for one in prepared], False)
    if options.write:
        fit = msgspec.structs.replace(layout.fit_of(theta), errors=errors_of(outcomes))
        TARGET.write_text(toml_of(fit, len(prepared)), encoding="utf-8")
        print(f"{TARGET} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
