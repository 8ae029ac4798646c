"""Running a model in the three ways in which its logits must be the same, and the error of each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.engine.steps import Chain

CONTEXT = 96


class Case(NamedTuple):
    """A checkpoint, prompts for it, and the logits (T, V) of each that transformers computes."""

    folder: Path
    prompts: list[NDArray[np.int32]]
    logits: list[NDArray[np.float32]]


def largest_error(case: Case, backend: str) -> float:
    """Of all ways, relative to the largest logit."""
    return max(
        prefill_error(case, backend), decode_error(case, backend), lanes_error(case, backend)
    )


def prefill_error(case: Case, backend: str) -> float:
    """The first prompt in one step, the layers on two stages."""
    chain = Chain(case.folder, (1,), backend=backend, context=CONTEXT)
    return _error(chain.run(case.prompts[0].tolist()), case.logits[0])


def decode_error(case: Case, backend: str) -> float:
    """The first prompt token by token, in a slot that another sequence left."""
    chain = Chain(case.folder, backend=backend, context=CONTEXT)
    chain.run(case.prompts[1].tolist(), slot=2)
    ids = case.prompts[0].tolist()
    return _error(chain.run(ids, [1] * len(ids), slot=2), case.logits[0])


def lanes_error(case: Case, backend: str) -> float:
    """Three prompts in lanes of one batch, cut into unequal chunks, slots out of order."""
    chain = Chain(case.folder, backend=backend, context=CONTEXT)
    slots, chunks = (3, 0, 2), ((7, 1, 20, 99), (12, 99), (1, 1, 9, 99))
    done, found = [0, 0, 0], [[], [], []]
    for step in range(max(len(of_one) for of_one in chunks)):
        going = [lane for lane in range(3) if step < len(chunks[lane])]
        parts = [case.prompts[i][done[i] : done[i] + chunks[i][step]].tolist() for i in going]
        steps = [(slots[i], done[i], ids) for i, ids in zip(going, parts, strict=True)]
        for lane, logits in zip(going, chain.step(steps), strict=True):
            found[lane].append(logits)
            done[lane] += len(logits)
    return max(
        _error(np.concatenate(rows), expected)
        for rows, expected in zip(found, case.logits, strict=True)
    )


def _error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())
