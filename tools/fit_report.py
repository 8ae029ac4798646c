"""Tables of how far predictions are from published rows, and the file that coefficients go to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from gangline.plan.engines import ENGINES, ErrorFit, Fit
from tools.fit_predict import Prepared

KINDS = ("decode", "cluster", "prefill")
QUANTILE = 0.8  # of the errors that a prediction carries
BORROWED_ROWS = 5  # of all engines together, beside the engine's own


class Outcome(NamedTuple):
    """A row, and what was predicted of it without its source."""

    prepared: Prepared
    predicted: float

    @property
    def error(self) -> float:
        return abs(self.predicted / self.prepared.case.value - 1)


def quantile(errors: list[float], share: float) -> float:
    """The error that `share` of the rows stay below."""
    return float(np.quantile(errors, share)) if errors else math.nan


def table(outcomes: list[Outcome], by: Callable[[Outcome], tuple[str, ...]]) -> list[str]:
    """Median and 90th percentile of groups of rows, and the mean of their signed errors."""
    groups: dict[tuple[str, ...], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[by(outcome)].append(outcome)
    lines = []
    for name, group in sorted(groups.items()):
        errors = [one.error for one in group]
        bias = np.median([one.predicted / one.prepared.case.value - 1 for one in group])
        lines.append(
            f"{'  '.join(name):<78} {len(errors):>4} {quantile(errors, 0.5):>7.1%} "
            f"{quantile(errors, 0.9):>7.1%} {bias:>+7.1%}"
        )
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
    head = f"{'':<78} {'rows':>4} {'median':>7} {'90 %':>7} {'bias':>7}"
    dated = [one for one in outcomes if one.prepared.case.dated]
    print(head, *table(dated, lambda o: (o.prepared.kind, "of Ollama's time, apart")), sep="\n")
    outcomes = [one for one in outcomes if not one.prepared.case.dated]
    for by in (
        lambda o: (o.prepared.kind,),
        lambda o: (o.prepared.kind, o.prepared.case.file),
        lambda o: (o.prepared.kind, o.prepared.case.engine),
        lambda o: (o.prepared.kind, o.prepared.case.engine, o.prepared.case.source),
    ):
        print(head, *table(outcomes, by), "", sep="\n")


def errors_of(outcomes: list[Outcome]) -> dict[str, ErrorFit]:
    """The error that each engine's predictions carry; few rows borrow from all of them."""
    outcomes = [one for one in outcomes if not one.prepared.case.dated]
    found: dict[str, ErrorFit] = {}
    for engine in ENGINES:
        values = {}
        for kind in KINDS:
            of_kind = [one for one in outcomes if one.prepared.kind == kind]
            own = [one.error for one in of_kind if one.prepared.case.engine == engine]
            value = quantile([one.error for one in of_kind], QUANTILE)
            if own:
                weight = len(own) / (len(own) + BORROWED_ROWS)
                value = weight * quantile(own, QUANTILE) + (1 - weight) * value
            values[kind] = round(value, 3)
        found[engine] = ErrorFit(**values)
    return found


def _toml(value: float | bool | tuple[str, ...]) -> str:
    """A coefficient as TOML has it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{name}"' for name in value) + "]"
    if isinstance(value, bool | int):
        return str(value).lower()
    text = f"{value:.4g}"
    return text if any(c in text for c in ".e") else text + ".0"


def toml_of(fit: Fit, n_rows: int) -> str:
    """`engines.toml`."""
    lines = [
        f"# Written by tools/fit_engines.py from the {n_rows} rows of tools/data/ that count. "
        "Do not edit: run it again.",
        "# docs/planner.md says what each coefficient means.",
    ]

    def section(name: str, value: msgspec.Struct) -> None:
        lines.extend(["", f"[{name}]"])
        for field in value.__struct_fields__:
            number = getattr(value, field)
            lines.append(f"{field} = {_toml(number)}")

    section("common", fit.common)
    for group in ("classes", "engines", "chips", "errors"):
        for name, value in getattr(fit, group).items():
            section(f'{group}."{name}"', value)
    return "\n".join(lines) + "\n"
