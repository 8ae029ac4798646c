"""The C++ extension (kernels/binding.cpp). Arrays are C-contiguous; errors are ValueError."""

from typing import overload

from numpy import float32, int32, uint8
from numpy.typing import NDArray

_F32 = NDArray[float32]
_I32 = NDArray[int32]
_Bytes = NDArray[uint8]

class Weight:
    """Matrices of equal width stacked along their rows; dense ones point into their arrays."""

    n: int
    k: int
    def __init__(self) -> None: ...
    def add_dense(self, data: _Bytes, dtype: str, rows: int, columns: int) -> None: ...
    def add_quantized(
        self,
        data: _Bytes,
        scales: _Bytes,
        offsets: _Bytes,
        dtype: str,
        rows: int,
        columns: int,
        bits: int,
        group_size: int,
    ) -> None: ...

class Experts:
    """A weight for each expert, all of one shape; `finish` comes after the last part."""

    n: int
    def __init__(self, n_experts: int) -> None: ...
    def add_dense(self, expert: int, data: _Bytes, dtype: str, rows: int, columns: int) -> None: ...
    def add_quantized(
        self,
        expert: int,
        data: _Bytes,
        scales: _Bytes,
        offsets: _Bytes,
        dtype: str,
        rows: int,
        columns: int,
        bits: int,
        group_size: int,
    ) -> None: ...
    def finish(self) -> None: ...

class Table:
    """An embedding (dense, or quantized with scales and offsets); points into its arrays.

    Of a weight of one quantized matrix it reads the packed form.
    """

    @property
    def k(self) -> int: ...
    @overload
    def __init__(self, weight: Weight) -> None: ...
    @overload
    def __init__(self, data: _Bytes, dtype: str, rows: int, columns: int) -> None: ...
    @overload
    def __init__(
        self,
        data: _Bytes,
        scales: _Bytes,
        offsets: _Bytes,
        dtype: str,
        rows: int,
        columns: int,
        bits: int,
        group_size: int,
    ) -> None: ...

class Heads:
    """A dense matrix, the rows of one head after the other; points into its array."""

    @property
    def n(self) -> int: ...
    def __init__(self, data: _Bytes, dtype: str, rows: int, columns: int, n_heads: int) -> None: ...

class Cache:
    """Keys and values of one layer."""

    def __init__(
        self,
        lanes: int,
        context: int,
        n_kv_heads: int,
        head_dim: int,
        value_dim: int,
        shared_values: bool,
        dtype: str,
    ) -> None: ...

class DeltaState:
    """What a delta-rule layer remembers of each lane."""

    def __init__(
        self,
        lanes: int,
        n_key_heads: int,
        n_value_heads: int,
        key_dim: int,
        value_dim: int,
        taps: int,
    ) -> None: ...

class Batch:
    """Rows of a step with their cache slots and positions, checked."""

    @property
    def rows(self) -> int: ...

def paths() -> list[str]:
    """Vector paths of this build that this processor can run, the fastest last."""

def path() -> str:
    """The path in use; `GANGLINE_CPU` forces one."""

def use_path(name: str) -> None: ...
def set_threads(n: int) -> None:
    """Threads of this process's pool, the caller included."""

def threads() -> int: ...
def read_bandwidth(bytes: int, threads: int, seconds: float) -> float:
    """Bytes per second of streaming reads; starts threads of its own."""

def batch(slots: _I32, starts: _I32, counts: _I32, lanes: int, context: int) -> Batch: ...
def linear(x: _F32, w: Weight, bias: _F32 | None, y: _F32, add: bool) -> None: ...
def linear_heads(x: _F32, w: Heads, y: _F32) -> None: ...
def embed(table: Table, ids: _I32, scale: float, y: _F32) -> None: ...
def rms_norm(x: _F32, w: _F32, eps: float, y: _F32) -> None: ...
def layer_norm(x: _F32, w: _F32, eps: float, y: _F32) -> None: ...
def add(residual: _F32, x: _F32, scale: float) -> None: ...
def sigmoid_gate(x: _F32, gate: _F32) -> None: ...
def soft_cap(x: _F32, cap: float) -> None: ...
def head_norm(
    qkv: _F32, q: _F32, k: _F32, n_heads: int, n_kv_heads: int, head_dim: int, eps: float
) -> None: ...
def gated_norm(x: _F32, gate: _F32, w: _F32, eps: float) -> None: ...
def rope(
    qkv: _F32, table: _F32, batch: Batch, n_heads: int, n_kv_heads: int, head_dim: int
) -> None: ...
def attend(
    qkv: _F32,
    cache: Cache,
    batch: Batch,
    n_heads: int,
    scale: float,
    window: int,
    soft_cap: float,
    sinks: _F32 | None,
    out: _F32,
) -> None: ...
def delta_net(
    mixed: _F32,
    beta: _F32,
    decay: _F32,
    state: DeltaState,
    batch: Batch,
    convolution: _F32,
    decay_log: _F32,
    decay_bias: _F32,
    out: _F32,
) -> None: ...
def gated_mlp(
    x: _F32,
    gate_up: Weight,
    down: Weight,
    activation: str,
    y: _F32,
    add: bool,
    gate_up_bias: _F32 | None,
    down_bias: _F32 | None,
) -> None: ...
def route(
    x: _F32,
    router: Weight,
    scoring: str,
    renormalize: bool,
    scale: float,
    n_groups: int,
    n_active_groups: int,
    bias: _F32 | None,
    correction: _F32 | None,
    experts: _I32,
    weights: _F32,
) -> None: ...
def mixture(
    x: _F32,
    experts: _I32,
    weights: _F32,
    gate_up: Experts,
    down: Experts,
    activation: str,
    y: _F32,
    gate_up_bias: _F32 | None,
    down_bias: _F32 | None,
) -> None: ...
