"""How long a step takes on one machine, between two, and all together; pure arithmetic.

Time of a span = max(bytes / bandwidth, operations / rate) + a fixed cost for each kernel; time of a
hop = half a round trip + bytes / bandwidth + what the engine spends on it. Single-stream latency is
the sum over stages and hops, throughput is one over the slowest of them. `docs/planner.md` derives
each term; this module knows no machine by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gangline.plan.catalog import LinkType
from gangline.plan.engines import EngineFit, Rates
from gangline.plan.shape import LayerCost, ModelCost

MATRIX_ROWS = 8  # from so many rows on, kernels work on tiles instead of single rows
BUS_HOP_US = 20.0  # between cards of one computer: a copy that is queued, no message
FIRST_WINDOW_BYTES = 14480  # of TCP after a pause: ten segments of Ethernet (RFC 6928, RFC 2861)
HIDDEN_BYTES = 4  # a hidden state crosses a hop in the float32 in which it is computed


class Work(msgspec.Struct, frozen=True):
    """What a step asks of one machine; sums of these are the work of a span."""

    shared_bytes: float = 0.0
    expert_bytes: float = 0.0
    cache_bytes: float = 0.0
    flops: float = 0.0
    expert_flops: float = 0.0
    tile_flops: float = 0.0  # for each row by which an expert's rows are rounded up
    attention_flops: float = 0.0
    operations: float = 0.0
    heads: float = 0.0  # 1 for what a head does besides its matrices: sampling, telling of tokens

    def __add__(self, other: Work) -> Work:
        return Work(
            self.shared_bytes + other.shared_bytes,
            self.expert_bytes + other.expert_bytes,
            self.cache_bytes + other.cache_bytes,
            self.flops + other.flops,
            self.expert_flops + other.expert_flops,
            self.tile_flops + other.tile_flops,
            self.attention_flops + other.attention_flops,
            self.operations + other.operations,
            self.heads + other.heads,
        )

    def times(self, n: int) -> Work:
        """`n` of the same."""
        return Work(*(n * value for value in msgspec.structs.astuple(self)))

    def shared_by(self, n: int, cache_parts: int) -> Work:
        """The part of one of `n` machines that hold a share of every matrix; kernels remain."""
        return Work(
            self.shared_bytes / n,
            self.expert_bytes / n,
            self.cache_bytes / min(n, cache_parts),
            self.flops / n,
            self.expert_flops / n,
            self.tile_flops / n,
            self.attention_flops / n,
            self.operations,
            self.heads,
        )


class Step(msgspec.Struct, frozen=True):
    """One step: `lanes` sequences that each add `rows` tokens behind `depth` tokens."""

    rows: int = 1
    lanes: int = 1
    depth: float = 0.0


def layer_work(layer: LayerCost, step: Step) -> Work:
    """What one layer does in one step."""
    rows = step.rows * step.lanes
    experts = layer.experts_read(rows)
    behind = step.depth + step.rows / 2  # the average row of a chunk sees half of the chunk
    seen = layer.cached_tokens(behind)
    read = step.lanes * (layer.cached_tokens(step.depth + step.rows) * layer.cache_bytes_per_token)
    return Work(
        shared_bytes=layer.shared_bytes,
        expert_bytes=experts * layer.expert_bytes,
        cache_bytes=read + 2 * step.lanes * layer.state_bytes,
        flops=rows * (layer.flops_per_token - layer.n_active * layer.expert_flops),
        expert_flops=rows * layer.n_active * layer.expert_flops,
        tile_flops=experts * layer.expert_flops if rows > MATRIX_ROWS else 0.0,
        attention_flops=rows * seen * layer.flops_per_pair,
        operations=layer.operations,
    )


def head_work(model: ModelCost, step: Step) -> Work:
    """The output matrix for the last row of each lane; looking up embeddings is free."""
    return Work(
        shared_bytes=model.head_read_bytes,
        flops=step.lanes * model.output_flops,
        operations=4,
        heads=1,
    )


def seconds(work: Work, rates: Rates) -> float:
    """How long a machine takes for this work."""
    reading = work.shared_bytes / rates.bytes_per_s + work.expert_bytes / rates.expert_bytes_per_s
    tiles = work.expert_flops + rates.expert_rows * work.tile_flops
    calculating = work.flops / rates.flops_per_s + tiles / rates.expert_flops_per_s
    attending = max(
        work.cache_bytes / rates.cache_bytes_per_s,
        work.attention_flops / rates.attention_flops_per_s,
    )
    fixed = work.operations * rates.operation_s + work.heads * rates.head_s
    return max(reading, calculating) + attending + fixed


def hop_seconds(n_bytes: float, link: LinkType, engine: EngineFit) -> float:
    """From the end of a stage to the beginning of the next one on another machine."""
    own = BUS_HOP_US if link.kind == "bus" else engine.hop_us
    waiting = link.rtt_us / 2 + link.per_message_us + own
    return waiting * 1e-6 + wire_seconds(n_bytes, link)


def wire_seconds(n_bytes: float, link: LinkType) -> float:
    """How long these bytes keep a link busy."""
    return n_bytes * 8 / (link.gbps * 1e9)


def window_seconds(n_bytes: float, link: LinkType) -> float:
    """What a message takes longer on a link that was idle, because TCP forgot how much it carries.

    A window is sent per round trip and doubles until it fills the link or holds what is left.
    """
    if link.kind in ("bus", "rdma"):
        return 0.0
    rtt_s = link.rtt_us * 1e-6
    full = rtt_s * link.gbps * 1e9 / 8
    window, sent, lost_s = float(FIRST_WINDOW_BYTES), 0.0, 0.0
    while window < min(full, n_bytes - sent):
        lost_s += rtt_s - wire_seconds(window, link)
        sent += window
        window *= 2
    return lost_s


def all_reduce_seconds(n_bytes: float, n: int, link: LinkType, engine: EngineFit) -> float:
    """Sum vectors of `n_bytes` over `n` machines: the better of direct exchange and a ring."""
    one_way = link.rtt_us / 2 * 1e-6
    each = link.per_message_us * 1e-6
    wire = wire_seconds(n_bytes, link)
    fixed = (engine.bus_sync_us if link.kind == "bus" else engine.sync_us) * 1e-6
    if engine.fan_out:  # everything meets at a root, which answers everybody
        return fixed * n * (n - 1) / 2 + 2 * one_way + 2 * (n - 1) * (each + wire)
    direct = one_way + (n - 1) * (each + wire)
    ring = 2 * (n - 1) * (one_way + each + wire / n)
    return fixed + min(direct, ring)


def span_work(model: ModelCost, start: int, end: int, step: Step, head: bool) -> Work:
    """What layers [start, end) do in one step, with the output matrix if `head`."""
    total = head_work(model, step) if head else Work()
    for layer in model.layer_costs[start:end]:
        total = total + layer_work(layer, step)
    return total


def tensor_work(model: ModelCost, n: int, step: Step) -> Work:
    """What each of `n` machines does of a step that they share matrix by matrix."""
    total = head_work(model, step).shared_by(n, 1)
    for layer in model.layer_costs:
        total = total + layer_work(layer, step).shared_by(n, layer.cache_parts)
    return total


def prompt_steps(tokens: int, depth: int, chunk: int) -> list[Step]:
    """The steps in which a prompt is read."""
    return [Step(min(chunk, tokens - done), 1, depth + done) for done in range(0, tokens, chunk)]


def pipelined_seconds(
    times: Sequence[Sequence[float]],
    hops: Sequence[Sequence[float]],
    wires: Sequence[Sequence[float]],
) -> float:
    """Until the last step has come around; [step][stage], and the hop behind each stage.

    A stage works on one step at a time, a link carries one at a time (`wires`, the part of a hop
    that keeps the link busy), and no more steps are under way than there are stages.
    """
    n_stages = len(times[0])
    stage_free, link_free = [0.0] * n_stages, [0.0] * n_stages
    back: list[float] = []
    for i, (computing, hop, wire) in enumerate(zip(times, hops, wires, strict=True)):
        now = back[i - n_stages] if i >= n_stages else 0.0
        for stage in range(n_stages):
            now = stage_free[stage] = max(now, stage_free[stage]) + computing[stage]
            if hop:
                start = max(now, link_free[stage])
                link_free[stage] = start + wire[stage]
                now = start + hop[stage]
        back.append(now)
    return back[-1]


def hidden_bytes(model: ModelCost, step: Step) -> int:
    """What a step sends over a hop."""
    return step.rows * step.lanes * model.hidden_size * HIDDEN_BYTES


def syncs_seconds(model: ModelCost, n: int, step: Step, link: LinkType, engine: EngineFit) -> float:
    """All all-reduces of a step over `n` machines that share every matrix."""
    one = all_reduce_seconds(hidden_bytes(model, step), n, link, engine)
    return model.n_layers * engine.syncs_per_layer * one
