"""Triton kernels: products with packed weights, and attention of rows that stand alone.

Only code for the device is here; `fused.py` chooses sizes and launches. `packed.py` arranges codes
in words of 32 bits, `32 / LOW` in each: of a group of g columns that fills U words, code j of word
u is column j U + u, so that for one j neighbouring words belong to neighbouring columns. Where
codes have more bits than `LOW`, the upper `HIGH` bits lie in a second plane, in the order of words
and then j. Everything is summed in float32, in an order that depends on sizes alone.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _words(low, high, row, word, inside, n_low, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Words (B, W) of both planes for rows (B,) and words (W,), the upper bits moved to the end."""
    lower = tl.load(low + row[:, None] * n_low + word[None], mask=inside, other=0)
    if HIGH:
        n_high = (n_low * HIGH + LOW - 1) // LOW
        bit = word * (32 // LOW * HIGH)  # where the upper bits of the word's first code begin
        upper = tl.load(high + row[:, None] * n_high + (bit // 32)[None], mask=inside, other=0)
        upper = upper >> (bit % 32)[None]
    else:
        upper = lower
    return lower, upper


@triton.jit
def _codes(lower, upper, j: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Code j of each word, float32."""
    codes = (lower >> (LOW * j)) & ((1 << LOW) - 1)
    if HIGH:
        codes = codes | (((upper >> (HIGH * j)) & ((1 << HIGH) - 1)) << LOW)
    return codes.to(tl.float32)


@triton.jit
def _affine(scales, offsets, row, group, inside, n_groups):
    """Scales and offsets (B, W) of the groups (W,) of the rows (B,), float32."""
    where = row[:, None] * n_groups + group[None]
    scale = tl.load(scales + where, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(offsets + where, mask=inside, other=0.0).to(tl.float32)
    return scale, offset


@triton.jit(do_not_specialize=["per_row"])
def multiply_alone(
    x,  # (T, K) float32
    low,  # (E, N, n_low) int32
    high,  # (E, N, n_high) int32
    scales,  # (E, N, n_groups)
    offsets,  # (E, N, n_groups)
    chosen,  # (P,) the matrix of each pair
    y,  # (P, N) float32
    per_row,  # pairs of each row of x
    n_outputs,  # N
    n_groups,  # K / GROUP
    CHOSEN: tl.constexpr,  # False: the one matrix that there is
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_WORDS: tl.constexpr,
):
    """Pairs of a row and a matrix: x @ matrix.T, BLOCK_OUT outputs of one pair."""
    PER_WORD: tl.constexpr = 32 // LOW
    UNIT: tl.constexpr = GROUP // PER_WORD
    n_low = n_groups * UNIT
    pair = tl.program_id(1)
    output = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    known = output < n_outputs
    row = output.to(tl.int64)
    if CHOSEN:
        row += tl.load(chosen + pair).to(tl.int64) * n_outputs
    x += (pair // per_row) * (n_groups * GROUP)
    sums = tl.zeros((BLOCK_OUT, BLOCK_WORDS), tl.float32)
    for first in range(0, n_low, BLOCK_WORDS):
        word = first + tl.arange(0, BLOCK_WORDS)
        present = word < n_low
        inside = known[:, None] & present[None]
        lower, upper = _words(low, high, row, word, inside, n_low, LOW, HIGH)
        scale, offset = _affine(scales, offsets, row, word // UNIT, inside, n_groups)
        products = tl.zeros((BLOCK_OUT, BLOCK_WORDS), tl.float32)
        total = tl.zeros((BLOCK_WORDS,), tl.float32)
        column = word // UNIT * GROUP + word % UNIT
        for j in tl.static_range(PER_WORD):
            value = tl.load(x + column + j * UNIT, mask=present, other=0.0)
            products += _codes(lower, upper, j, LOW, HIGH) * value[None]
            total += value
        sums += scale * products + offset * total[None]
    tl.store(y + pair.to(tl.int64) * n_outputs + output, tl.sum(sums, 1), mask=known)


@triton.jit(do_not_specialize=["n_pairs", "per_row"])
def multiply_tiles(
    x,  # (T, K), in the precision of the products
    low,  # (E, N, n_low) int32
    high,  # (E, N, n_high) int32
    scales,  # (E, N, n_groups)
    offsets,  # (E, N, n_groups)
    order,  # (P,) pairs, those of one matrix next to each other
    matrices,  # (n_tiles,) the matrix of each tile of pairs
    firsts,  # (n_tiles,) its first place in `order`
    ends,  # (n_tiles,) the end of its matrix's pairs in `order`; 0: a tile of nothing
    y,  # (P, N) float32
    n_pairs,  # P
    per_row,  # pairs of each row of x
    n_outputs,  # N
    n_groups,  # K / GROUP
    CHOSEN: tl.constexpr,  # False: the one matrix that there is, pairs are rows in their order
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_WORDS: tl.constexpr,
):
    """x @ matrix.T for BLOCK_ROWS pairs of one matrix and BLOCK_OUT outputs."""
    PER_WORD: tl.constexpr = 32 // LOW
    UNIT: tl.constexpr = GROUP // PER_WORD
    n_low = n_groups * UNIT
    tile = tl.program_id(0)
    output = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    known_output = output < n_outputs
    row = output.to(tl.int64)
    if CHOSEN:
        first_pair = tl.load(firsts + tile).to(tl.int32)
        end = tl.load(ends + tile).to(tl.int32)
        if first_pair >= end:
            return
        row += tl.load(matrices + tile).to(tl.int64) * n_outputs
    else:
        first_pair = tile * BLOCK_ROWS
        end = n_pairs
    pair = first_pair + tl.arange(0, BLOCK_ROWS)
    known_pair = pair < end
    if CHOSEN:
        pair = tl.load(order + pair, mask=known_pair, other=0).to(tl.int32)
    source = (pair // per_row).to(tl.int64) * (n_groups * GROUP)
    sums = tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32)
    for first in range(0, n_low, BLOCK_WORDS):
        word = first + tl.arange(0, BLOCK_WORDS)
        present = word < n_low
        inside = known_output[:, None] & present[None]
        lower, upper = _words(low, high, row, word, inside, n_low, LOW, HIGH)
        scale, offset = _affine(scales, offsets, row, word // UNIT, inside, n_groups)
        column = word // UNIT * GROUP + word % UNIT
        place = x + source[:, None] + column[None]
        for j in tl.static_range(PER_WORD):
            values = tl.load(place + j * UNIT, mask=known_pair[:, None] & present[None], other=0.0)
            weights = (_codes(lower, upper, j, LOW, HIGH) * scale + offset).to(values.dtype)
            sums = tl.dot(values, tl.trans(weights), sums)
    place = pair.to(tl.int64)[:, None] * n_outputs + output[None]
    tl.store(y + place, sums, mask=known_pair[:, None] & known_output[None])


@triton.jit
def attend_part(
    queries,  # (S, H, DIM) float32, scaled
    keys,  # (lanes, context, KV, DIM)
    values,  # (lanes, context, KV, VALUE_DIM)
    slots,  # (S,)
    positions,  # (S,)
    out,  # (S, H, N_PARTS, VALUE_DIM) float32: sums of values
    largest,  # (S, H, N_PARTS) float32: the largest score, minus infinity where there is none
    totals,  # (S, H, N_PARTS) float32: sums of weights
    key_lane,  # how far a lane, a position and a head are from the next
    key_position,
    key_head,
    value_lane,
    value_position,
    value_head,
    n_heads,  # H
    window,  # positions that a row sees, itself included; 0: all
    soft_cap,
    SOFT_CAP: tl.constexpr,  # whether there is one
    SHARING: tl.constexpr,  # H / KV
    ROWS: tl.constexpr,  # SHARING, rounded up to what `tl.dot` takes
    DIM: tl.constexpr,
    DIM_BLOCK: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    N_PARTS: tl.constexpr,
):
    """A row of a lane, the heads that share a key head, and a part of the keys that they see."""
    sequence = tl.program_id(0)
    kv_head = tl.program_id(1)
    part = tl.program_id(2)
    slot = tl.load(slots + sequence).to(tl.int64)
    position = tl.load(positions + sequence).to(tl.int32)
    # 1. The keys of this part: whole blocks, dealt out evenly.
    first_seen = tl.where(window > 0, tl.maximum(position + 1 - window, 0), 0)
    n_blocks = (position - first_seen) // BLOCK_KEYS + 1
    per_part = (n_blocks + N_PARTS - 1) // N_PARTS * BLOCK_KEYS
    begin = first_seen + part * per_part
    end = tl.minimum(begin + per_part, position + 1)
    # 2. The queries, in the precision of the keys.
    share = tl.arange(0, ROWS)
    head = kv_head * SHARING + share
    known_head = share < SHARING
    dim = tl.arange(0, DIM_BLOCK)
    value_dim = tl.arange(0, VALUE_BLOCK)
    line = (sequence * n_heads + head)[:, None] * DIM + dim[None]
    query = tl.load(queries + line, mask=known_head[:, None] & (dim < DIM)[None], other=0.0)
    query = query.to(keys.dtype.element_ty)
    keys += slot * key_lane + kv_head * key_head
    values += slot * value_lane + kv_head * value_head
    # 3. Softmax in one pass over blocks of keys.
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, VALUE_BLOCK), tl.float32)
    for start in range(begin, end, BLOCK_KEYS):
        seen = start + tl.arange(0, BLOCK_KEYS)
        known = seen < end
        at = seen.to(tl.int64)
        block = tl.load(
            keys + at[:, None] * key_position + dim[None],
            mask=known[:, None] & (dim < DIM)[None],
            other=0.0,
        )
        scores = tl.dot(query, tl.trans(block), input_precision="ieee")
        if SOFT_CAP:  # tanh by the exponential: exact at both ends
            scores = soft_cap * (1.0 - 2.0 / (tl.exp(2.0 * scores / soft_cap) + 1.0))
        scores = tl.where(known[None], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        kept = tl.exp(highest - higher)
        weights = tl.exp(scores - higher[:, None])
        block = tl.load(
            values + at[:, None] * value_position + value_dim[None],
            mask=known[:, None] & (value_dim < VALUE_DIM)[None],
            other=0.0,
        )
        total = total * kept + tl.sum(weights, 1)
        added = tl.dot(weights.to(block.dtype), block, input_precision="ieee")
        sums = sums * kept[:, None] + added
        highest = higher
    place = (sequence * n_heads + head) * N_PARTS + part
    tl.store(largest + place, highest, mask=known_head)
    tl.store(totals + place, total, mask=known_head)
    here = place[:, None] * VALUE_DIM + value_dim[None]
    tl.store(out + here, sums, mask=known_head[:, None] & (value_dim < VALUE_DIM)[None])


@triton.jit
def attend_join(
    parts,  # (S, H, N_PARTS, VALUE_DIM) float32
    largest,  # (S, H, N_PARTS) float32
    totals,  # (S, H, N_PARTS) float32
    sinks,  # (H,) float32
    y,  # (S, H, VALUE_DIM) float32
    n_heads,  # H
    SINKS: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
    N_PARTS: tl.constexpr,
):
    """The parts of one row and head as one softmax, in which a sink takes a share."""
    line = tl.program_id(0)  # s H + h
    part = tl.arange(0, N_PARTS)
    dim = tl.arange(0, VALUE_BLOCK)
    scores = tl.load(largest + line * N_PARTS + part)
    highest = tl.max(scores, 0)
    if SINKS:
        sink = tl.load(sinks + line % n_heads)
        highest = tl.maximum(highest, sink)
    kept = tl.exp(scores - highest)
    total = tl.sum(tl.load(totals + line * N_PARTS + part) * kept, 0)
    if SINKS:
        total += tl.exp(sink - highest)
    place = (line * N_PARTS + part)[:, None] * VALUE_DIM + dim[None]
    sums = tl.load(parts + place, mask=(dim < VALUE_DIM)[None], other=0.0)
    result = tl.sum(sums * kept[:, None], 0) / total
    tl.store(y + line * VALUE_DIM + dim, result, mask=dim < VALUE_DIM)
