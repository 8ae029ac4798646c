"""Fit what engines reach of a machine's specification to published measurements.

    python -m tools.fit_engines                 print the residuals, leave one source out
    python -m tools.fit_engines --write         and write src/gangline/plan/catalog/engines.toml
    python -m tools.fit_engines --judge FILE    how well the written file predicts other rows

`fit_layout.py` has the factors and their priors. Rows of one source share a build, a machine and a
way to measure, so that each source may be off by a factor of its own, which is fitted and thrown
away: forty rows of one source count as little more than a few. The sum of squared, Huber-weighted
log errors and priors is minimized with Levenberg-Marquardt. Needs NumPy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from gangline.plan.engines import published_fit
from tools.fit_layout import Floats, Layout
from tools.fit_predict import Prepared, predict, prepare
from tools.fit_report import Outcome, errors_of, report, toml_of
from tools.published import DATA, cases_of, read_rows

TARGET = Path(__file__).parents[1] / "src" / "gangline" / "plan" / "catalog" / "engines.toml"
SIGMA = {"decode": 0.08, "cluster": 0.14, "prefill": 0.20}  # log error expected of a good row
SOURCE_SIGMA = {"decode": 0.10, "cluster": 0.12, "prefill": 0.20}  # that a source's rows share
HUBER = 1.5  # standard deviations beyond which a row, or a source, pulls no harder
NUDGE = 1e-4  # of a logarithm, for slopes


class Problem:
    """Rows, factors, and a factor of each source beside them."""

    def __init__(self, prepared: list[Prepared], layout: Layout) -> None:
        self.prepared, self.layout = prepared, layout
        self.sigma: Floats = np.array([SIGMA[one.kind] * (1 + one.case.dated) for one in prepared])
        self.measured: Floats = np.log([one.case.value for one in prepared])
        of_source = [(one.case.source, one.kind) for one in prepared]
        sources = sorted(set(of_source))
        self.n_factors = len(layout.keys)
        self.shared = np.array([[one == source for source in sources] for one in of_source], float)
        self.means: Floats = np.concatenate([layout.means, np.zeros(len(sources))])
        self.widths: Floats = np.concatenate(
            [layout.widths, [SOURCE_SIGMA[kind] for _, kind in sources]]
        )
        self.concerned = [
            [i for i, one in enumerate(prepared) if layout.concerns(key, one.case)]
            for key in layout.keys
        ]

    def start(self, factors: Floats) -> Floats:
        """Factors, and sources that are not off."""
        return np.concatenate([factors, np.zeros(len(self.means) - self.n_factors)])

    def errors(self, theta: Floats) -> Floats:
        """Of each row, in standard deviations."""
        fit = self.layout.fit_of(theta[: self.n_factors])
        logs: Floats = np.log([predict(one, fit) for one in self.prepared])
        of_sources: Floats = self.shared @ theta[self.n_factors :]
        return (logs + of_sources - self.measured) / self.sigma

    def jacobian(self, theta: Floats) -> Floats:
        """Slope of each row's error in each number."""
        slopes = np.zeros((len(self.prepared), len(theta)))
        slopes[:, self.n_factors :] = self.shared / self.sigma[:, None]
        factors = theta[: self.n_factors]
        fit = self.layout.fit_of(factors)
        before = np.log([predict(one, fit) for one in self.prepared])
        for i, rows in enumerate(self.concerned):
            moved = factors.copy()
            moved[i] += NUDGE
            fit = self.layout.fit_of(moved)
            after = np.log([predict(self.prepared[row], fit) for row in rows])
            slopes[rows, i] = (after - before[rows]) / NUDGE / self.sigma[rows]
        return slopes

    def loss(self, residuals: Floats, theta: Floats) -> float:
        """What is minimized."""
        apart = self.apart(theta)
        robust = np.abs(np.concatenate([residuals, apart[self.n_factors :]]))
        huber = np.where(robust < HUBER, robust**2, 2 * HUBER * robust - HUBER**2)
        return float(huber.sum() + (apart[: self.n_factors] ** 2).sum())

    def apart(self, theta: Floats) -> Floats:
        """How far each number is from what was believed of it, in standard deviations."""
        return (theta - self.means) / self.widths


def _pull(apart: Floats) -> Floats:
    """How much of its pull a row keeps that is so many standard deviations off."""
    return np.minimum(1.0, HUBER / np.maximum(np.abs(apart), 1e-9))


def solve(problem: Problem, factors: Floats, rounds: int) -> Floats:
    """The most probable logarithms of all factors."""
    theta, damping = problem.start(factors), 1e-2
    residuals = problem.errors(theta)
    for _ in range(rounds):
        jacobian = problem.jacobian(theta)
        weights = _pull(residuals)
        beliefs = problem.widths**-2.0
        beliefs[problem.n_factors :] *= _pull(problem.apart(theta)[problem.n_factors :])
        normal = jacobian.T @ (jacobian * weights[:, None]) + np.diag(beliefs)
        slope = jacobian.T @ (weights * residuals) + beliefs * (theta - problem.means)
        before = problem.loss(residuals, theta)
        for _ in range(8):
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope)
            tried = theta + np.clip(step, -1.0, 1.0)
            new = problem.errors(tried)
            if problem.loss(new, tried) < before:
                damping = max(damping / 5, 1e-6)
                break
            damping *= 4
        else:
            break
        theta, residuals = tried, new
        if before - problem.loss(residuals, theta) < 1e-4 * before:
            break
    return theta[: problem.n_factors]


def cross_validate(
    prepared: list[Prepared], layout: Layout, factors: Floats, note: Callable[[str], None]
) -> list[Outcome]:
    """Predict each source's rows from all the other sources."""
    outcomes = []
    for source in sorted({one.case.source for one in prepared}):
        rest = [one for one in prepared if one.case.source != source]
        held = [one for one in prepared if one.case.source == source]
        note(f"without {source} ({len(held)} rows)")
        fit = layout.fit_of(solve(Problem(rest, layout), factors, 3))
        outcomes += [Outcome(one, predict(one, fit)) for one in held]
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", default=DATA, help="the published rows")
    parser.add_argument("--report", action="store_true", help="the residuals of each row as well")
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.name}")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="rows to predict, not to fit")
    parser.add_argument("--fast", action="store_true", help="fit only, leave no source out")
    options = parser.parse_args()
    cases, left_out = cases_of(read_rows([options.judge] if options.judge else options.data))
    prepared = [prepare(case) for case in cases]
    for reason, ids in left_out.items():
        print(f"left out, {reason}: {' '.join(ids)}")
    print()
    if options.judge:
        report([Outcome(one, predict(one, published_fit())) for one in prepared], True)
        return 0
    layout = Layout(cases)
    factors = solve(Problem(prepared, layout), layout.means, 25)
    fitted = layout.fit_of(factors)
    print("with all sources\n")
    report([Outcome(one, predict(one, fitted)) for one in prepared], options.fast)
    if options.fast:
        return 0
    outcomes = cross_validate(prepared, layout, factors, lambda text: print(text, file=sys.stderr))
    print("leave one source out\n")
    report(outcomes, options.report)
    if options.write:
        fit = msgspec.structs.replace(fitted, errors=errors_of(outcomes))
        TARGET.write_text(toml_of(fit, len(prepared)), encoding="utf-8")
        print(f"{TARGET} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
