"""What quantizing costs: the demo model's score as it is, and as GGUF files of fewer bits.

    pip install -e '.[test]' && python -m tools.quality

Writes each type with the `gguf` package, loads it into a node of its own, and asks the held-out
questions of tools/eval_demo.py. Exits with 1 where 8 bits lose more than 1 point, or 4 more than 3.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.cluster import Cluster, running_cluster
from tests.make_gguf import make_gguf

from gangline.cli.common import unload
from gangline.paths import demo_model
from tools import demo_cases, eval_demo

# Type of the matrices → points of 100 that it may lose.
ALLOWED = {"Q8_0": 1.0, "Q5_0": 1.0, "Q4_1": 3.0, "Q4_0": 3.0}
AS_IT_IS = "BF16"


def score(cluster: Cluster, model: str, cases: list[demo_cases.Case]) -> float:
    """Percent of the questions that a model answers right."""
    cluster.load(model=model)
    answers = eval_demo.endpoint_answerer(f"{cluster.urls[0]}/v1", model, 8)(cases)
    unload(cluster.client, model)
    right = sum(case.is_right(answer) for case, answer in zip(cases, answers, strict=True))
    return 100 * right / len(cases)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, default=demo_model(), help="folder (default: the demo)"
    )
    parser.add_argument("--sums", type=int, default=400, help="held-out sums (default: 400)")
    options = parser.parse_args()
    cases = demo_cases.held_out_cases(2026, options.sums)
    scores: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {
            kind: make_gguf(folder / f"{kind}.gguf", options.model, kind).stat().st_size
            for kind in (AS_IT_IS, *ALLOWED)
        }
        with running_cluster(1, folder) as cluster:
            print(f"{'TYPE':<8}{'MB':>6}{'RIGHT':>9}{'LOST':>8}   of {len(cases)} questions")
            for kind, size in sizes.items():
                scores[kind] = score(cluster, kind, cases)
                lost = scores[AS_IT_IS] - scores[kind]
                print(f"{kind:<8}{size / 1e6:>6.1f}{scores[kind]:>8.1f}%{lost:>8.1f}")
    failed = [kind for kind, points in ALLOWED.items() if scores[AS_IT_IS] - scores[kind] > points]
    for kind in failed:
        print(f"error: {kind} loses more than {ALLOWED[kind]} points", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
