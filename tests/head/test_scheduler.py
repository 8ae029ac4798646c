"""The scheduler: every token is carried exactly once and in order, whatever comes and goes."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from gangline.head.requests import Sampling
from gangline.head.scheduler import Lane, Scheduler, Step


def lane(number: int, prompt: int, last: int = 10_000) -> Lane:
    return Lane((0, number), list(range(prompt)), Sampling(), last)


def sample_all(step: Step) -> None:
    for one in step.sampled:
        one.tokens.append(len(one.tokens))


def drain(scheduler: Scheduler) -> list[Step]:
    """Start steps until the ring is full or nothing is left to do."""
    steps = []
    while (step := scheduler.next_step()) is not None:
        steps.append(step)
    return steps


def test_one_lane_one_stage() -> None:
    scheduler = Scheduler(lanes=4, n_stages=1, step_rows=8)
    scheduler.add(lane(1, prompt=5))
    step = scheduler.next_step()
    assert step is not None
    assert step.layout.tolist() == [[0], [0], [5], [1]]
    assert step.ids.tolist() == [0, 1, 2, 3, 4]
    assert scheduler.next_step() is None  # one stage, one step in flight
    sample_all(scheduler.complete())
    step = scheduler.next_step()
    assert step is not None
    assert step.layout.tolist() == [[0], [5], [1], [1]]


def test_long_prompt_is_cut_and_its_chunks_fill_the_ring() -> None:
    scheduler = Scheduler(lanes=2, n_stages=3, step_rows=4)
    scheduler.add(lane(1, prompt=10))
    steps = drain(scheduler)
    assert [step.layout[:, 0].tolist() for step in steps] == [
        [0, 0, 4, 0],
        [0, 4, 4, 0],
        [0, 8, 2, 1],
    ]
    assert [len(step.sampled) for step in steps] == [0, 0, 1]


def test_decoding_lanes_are_dealt_over_the_stages() -> None:
    scheduler = Scheduler(lanes=8, n_stages=4, step_rows=64)
    for number in range(8):
        scheduler.add(lane(number, prompt=1))
    for step in drain(scheduler):
        sample_all(scheduler.complete())
        assert len(step.sampled) == 8
    assert [step.layout.shape[1] for step in drain(scheduler)] == [2, 2, 2, 2]


def test_a_waiting_lane_gets_the_slot_of_a_removed_one() -> None:
    scheduler = Scheduler(lanes=1, n_stages=1, step_rows=4)
    first, second = lane(1, 2), lane(2, 2)
    scheduler.add(first)
    scheduler.add(second)
    assert scheduler.next_step() is not None
    assert (scheduler.n_active, scheduler.n_waiting) == (1, 1)
    assert scheduler.remove((0, 1)) is first
    assert not scheduler.is_current(first)
    scheduler.complete()
    step = scheduler.next_step()
    assert step is not None and step.sampled == (second,)
    assert scheduler.remove((0, 9)) is None


def test_every_lane_advances_while_prompts_keep_arriving() -> None:
    scheduler = Scheduler(lanes=3, n_stages=1, step_rows=4)
    decoding = lane(0, prompt=1)
    scheduler.add(decoding)
    for number in range(1, 8):
        scheduler.add(lane(number, prompt=9))
        before = len(decoding.tokens)
        drain(scheduler)
        sample_all(scheduler.complete())
        assert len(decoding.tokens) == before + 1


@given(
    lanes=st.integers(1, 6),
    n_stages=st.integers(1, 5),
    extra_rows=st.integers(0, 9),
    actions=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 30)),
            st.tuples(st.just("step"), st.just(0)),
            st.tuples(st.just("complete"), st.just(0)),
            st.tuples(st.just("cancel"), st.integers(0, 20)),
        ),
        max_size=120,
    ),
)
def test_any_schedule_carries_each_token_once_in_order(
    lanes: int, n_stages: int, extra_rows: int, actions: list[tuple[str, int]]
) -> None:
    scheduler = Scheduler(lanes, n_stages, lanes + extra_rows)
    carried: dict[int, list[int]] = defaultdict(list)  # by slot, since its lane took it
    added: list[Lane] = []
    in_flight: list[Step] = []
    for action, value in actions:
        if action == "add":
            added.append(lane(len(added), value))
            scheduler.add(added[-1])
        elif action == "cancel" and added:
            scheduler.remove(added[value % len(added)].key)
        elif action == "complete" and in_flight:
            assert scheduler.complete() is in_flight.pop(0)
        elif action == "step" and (step := scheduler.next_step()) is not None:
            in_flight.append(step)
            assert len(in_flight) <= n_stages
            assert len(step.ids) == step.layout[2].sum() <= lanes + extra_rows
            assert len(set(step.layout[0].tolist())) == step.layout.shape[1]
            row = 0
            for slot, start, count, _ in step.layout.T.tolist():
                if start == 0:
                    carried[slot] = []
                assert start == len(carried[slot])
                carried[slot] += step.ids[row : row + count].tolist()
                assert carried[slot] == list(range(len(carried[slot])))
                row += count
            sample_all_current(scheduler, step)


def sample_all_current(scheduler: Scheduler, step: Step) -> None:
    for one in step.sampled:
        if scheduler.is_current(one):
            one.tokens.append(len(one.tokens))
