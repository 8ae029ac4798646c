"""The frames of the data plane: a fixed header, the batch layout, raw hidden states.

    header   48 bytes, see `_HEADER`
    layout   int32 (4, S): cache slot, start position, number of rows, 1 if logits are wanted
    hidden   rows x width of the dtype that the sender computes in

A STEP goes from the head through the stages; the RESULT comes back from the last stage with the
last row of each sequence that wants logits, and no layout: the head knows what it asked for.
A stage needs no other messages. Bytes and arrays only, no socket.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gangline.errors import ProtocolError

MAGIC = b"GLF1"
F32_TAG = 1  # the only dtype in which back ends keep hidden states today

# magic, kind, dtype, reserved, epoch, step, sequences, rows, width, reserved
_HEADER = struct.Struct("<4sBBHQQIIIIQ")
HEADER_BYTES = _HEADER.size

Hidden = NDArray[np.float32]
Layout = NDArray[np.int32]


class FrameKind(enum.IntEnum):
    STEP = 1
    RESULT = 2


class Limits(NamedTuple):
    """What a frame may contain at most; larger ones are refused before memory is touched."""

    epoch: int
    lanes: int
    rows: int
    width: int

    @property
    def frame_bytes(self) -> int:
        """The size of the largest frame that is allowed."""
        return HEADER_BYTES + 16 * self.lanes + 4 * self.rows * self.width


class Header(NamedTuple):
    kind: FrameKind
    step: int
    sequences: int
    rows: int
    width: int

    @property
    def body_bytes(self) -> int:
        """Bytes that follow the header."""
        return 16 * self.sequences + 4 * self.rows * self.width


class Frame(NamedTuple):
    """One frame; `layout` and `hidden` may be views of the receiver's buffer."""

    kind: FrameKind
    step: int
    layout: Layout  # (4, S)
    hidden: Hidden  # (rows, width)


def pack_header(kind: FrameKind, epoch: int, step: int, layout: Layout, hidden: Hidden) -> bytes:
    """The 48 bytes before `layout` and `hidden`, both C-contiguous."""
    rows, width = hidden.shape
    return _HEADER.pack(MAGIC, kind, F32_TAG, 0, epoch, step, layout.shape[1], rows, width, 0, 0)


def parse_header(data: memoryview | bytes, limits: Limits) -> Header:
    """Check the header of an incoming frame; raises ProtocolError naming what is wrong."""
    magic, kind, dtype, _, epoch, step, sequences, rows, width, _, _ = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ProtocolError("a frame does not begin with the data plane's magic")
    if kind not in (FrameKind.STEP, FrameKind.RESULT):
        raise ProtocolError(f"a frame is of unknown kind {kind}")
    if dtype != F32_TAG:
        raise ProtocolError(f"a frame's hidden states are of unknown dtype {dtype}")
    if epoch != limits.epoch:
        raise ProtocolError(f"a frame is of epoch {epoch}, this worker is of {limits.epoch}")
    if sequences > limits.lanes or rows > limits.rows:
        raise ProtocolError(
            f"a frame has {sequences} sequences and {rows} rows; "
            f"the limits are {limits.lanes} and {limits.rows}"
        )
    if width != limits.width:
        raise ProtocolError(f"a frame's rows are {width} wide, this model's are {limits.width}")
    return Header(FrameKind(kind), step, sequences, rows, width)


def parse_body(header: Header, body: memoryview) -> Frame:
    """Layout and hidden states as views of `body`; raises ProtocolError for a bad layout.

    Checks what can be checked without the cache: row counts are positive and add up, flags are 0
    or 1, and no slot occurs twice. Slots and positions are checked against the cache's size by
    the engine.
    """
    split = 16 * header.sequences
    layout = np.frombuffer(body[:split], dtype="<i4").reshape(4, header.sequences)
    hidden = np.frombuffer(body[split:], dtype="<f4").reshape(header.rows, header.width)
    if header.kind is FrameKind.RESULT:
        if header.sequences:
            raise ProtocolError("a result frame carries a layout")
    else:
        _check_layout(layout, header.rows)
    return Frame(header.kind, header.step, layout, hidden)


def _check_layout(layout: Layout, rows: int) -> None:
    slots, starts, counts, wanted = layout.tolist()
    if min(slots, default=0) < 0 or min(starts, default=0) < 0 or min(counts, default=1) < 1:
        raise ProtocolError("a frame's layout has a negative slot or position, or an empty row")
    if sum(counts) != rows:
        raise ProtocolError(f"a frame's layout counts {sum(counts)} rows, the frame has {rows}")
    if not set(wanted) <= {0, 1}:
        raise ProtocolError("a frame's layout has a flag that is neither 0 nor 1")
    if len(set(slots)) != len(slots):
        raise ProtocolError("a frame's layout names a slot twice")


def wanted_rows(layout: Layout) -> NDArray[np.int32]:
    """The last row of each sequence that wants logits, in the layout's order."""
    ends: NDArray[np.int32] = np.cumsum(layout[2], dtype=np.int32)
    last: NDArray[np.int32] = ends[layout[3] == 1] - np.int32(1)
    return last
