"""Takes a family's tensors from a checkpoint, checks their shapes, hands them to a back end.

Rows are brought into the order that the operations want (`Rows.chosen`), quantized ones too.
Knows names and shapes; which tensors a layer needs is said in `layers/`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gangline.checkpoint.families import FAMILIES, Family
from gangline.checkpoint.model import Checkpoint
from gangline.checkpoint.shape import Attention, CacheDtype, DeltaNet, Rope
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.reference import dense
from gangline.engine.operations import F32, Operations
from gangline.engine.rope import cos_sin
from gangline.errors import CheckpointError

# Where the text model is: alone, or beside the other parts of a model that sees.
ROOTS = ("model.", "language_model.model.", "model.language_model.")
OUTPUTS = ("lm_head", "language_model.lm_head")

Chosen = NDArray[np.intp]


class Rows(NamedTuple):
    """A module with so many rows, of which the chosen ones are taken, in their order."""

    module: str
    n_rows: int
    chosen: Chosen | None = None


class Memory(NamedTuple):
    """For how many sequences, of how many tokens, a cache has room."""

    lanes: int
    context: int
    dtype: CacheDtype


class Loader:
    """Loads what a checkpoint has for one back end; counts the bytes of each tensor once."""

    def __init__(self, checkpoint: Checkpoint, operations: Operations, memory: Memory) -> None:
        self.checkpoint = checkpoint
        self.shape = checkpoint.shape
        self.operations = operations
        self.memory = memory
        self.family = FAMILIES[checkpoint.shape.family]
        self.names = self.family.names
        self.root = _root(checkpoint)
        self._offset = np.float32(_has_offset(self.family, checkpoint))
        self._counted: dict[str, int] = {}
        self._rope_tables: dict[Rope, Any] = {}

    @property
    def n_bytes(self) -> int:
        """Of the weights that were loaded, as they lie in the files."""
        return sum(self._counted.values())

    def layer(self, number: int) -> str:
        """What the names of a layer's tensors begin with."""
        return f"{self.root}layers.{number}."

    def __contains__(self, name: str) -> bool:
        return name in self.checkpoint

    # Tensors -----------------------------------------------------------------------------------

    def tensor(self, name: str, *expected: tuple[int, ...]) -> Tensor:
        """Tensor `name`, which must have one of the expected shapes."""
        tensor = self.checkpoint.tensor(name)
        self.check(tensor, *expected)
        self._counted[name] = tensor.n_bytes
        return tensor

    def check(self, tensor: Tensor, *expected: tuple[int, ...]) -> None:
        """Refuse a tensor that has none of the expected shapes."""
        if tensor.shape not in expected:
            wanted = " or ".join(str(list(shape)) for shape in expected)
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor `{tensor.name}` has shape {list(tensor.shape)}, "
                f"config.json needs {wanted}",
                hint="config.json and the weights belong to different models.",
            )

    def matrix(self, *rows: Rows, columns: int) -> Any:
        """Modules stacked along their rows, ready for `linear`."""
        parts = [
            _choose(self.tensor(f"{part.module}.weight", (part.n_rows, columns)), part.chosen)
            for part in rows
        ]
        weight = self.operations.weight(*parts)
        self.forget(*parts)
        return weight

    def bias(self, *rows: Rows) -> Any | None:
        """The stacked biases of modules, zeros for those without; None if all are without."""
        if not any(f"{part.module}.bias" in self.checkpoint for part in rows):
            return None
        return self.operations.vector(*(self._bias(part) for part in rows))

    def vector(self, name: str, size: int) -> Any:
        return self.operations.vector(self.tensor(name, (size,)))

    def norm(self, module: str, size: int, scale: float = 1.0) -> Any:
        """A norm's weight, the family's offset added, times `scale`."""
        tensor = self.tensor(f"{module}.weight", (size,))
        if self._offset or scale != 1:
            tensor = in_f32(tensor, (dense(tensor) + self._offset) * np.float32(scale))
        return self.operations.vector(tensor)

    def forget(self, *tensors: Tensor) -> None:
        """Back ends repack quantized tensors, so their pages are not needed again."""
        for tensor in tensors:
            if tensor.quantized is not None:
                self.checkpoint.forget(tensor)

    def _bias(self, part: Rows) -> Tensor:
        name = f"{part.module}.bias"
        if name in self.checkpoint:
            return _choose(self.tensor(name, (part.n_rows,)), part.chosen)
        n_rows = part.n_rows if part.chosen is None else len(part.chosen)
        return Tensor(name, "f32", (n_rows,), np.zeros(n_rows, np.float32))

    # Memory ------------------------------------------------------------------------------------

    def cache(self, rules: Attention) -> Any:
        lanes, context, dtype = self.memory
        return self.operations.cache(lanes, context, rules, dtype)

    def delta_state(self, rules: DeltaNet) -> Any:
        return self.operations.delta_state(self.memory.lanes, rules)

    def rope_table(self, rope: Rope) -> Any:
        """The table of one kind of rotation; layers of the same kind share it."""
        if rope not in self._rope_tables:
            table = self.operations.rope_table(cos_sin(self.memory.context, rope))
            self._rope_tables[rope] = table
        return self._rope_tables[rope]


def rotating_rows(n_heads: int, head_dim: int, rope: Rope | None, start: int = 0) -> Chosen | None:
    """The order of a module's rows in which pairs of numbers lie half a rotation apart.

    The rotating numbers of each head begin at `start`. None where they are in order already.
    """
    if rope is None or not rope.neighbours:
        return None
    of_one = np.arange(head_dim)
    turning = of_one[start : start + rope.dim].copy()
    of_one[start : start + rope.dim] = np.concatenate([turning[::2], turning[1::2]])
    return (np.arange(n_heads)[:, None] * head_dim + of_one).reshape(-1)


def in_f32(tensor: Tensor, values: F32) -> Tensor:
    """A dense tensor of other values in the place of `tensor`."""
    return Tensor(tensor.name, "f32", values.shape, values)


def _choose(tensor: Tensor, chosen: Chosen | None) -> Tensor:
    return tensor if chosen is None else tensor.rows(chosen)


def _has_offset(family: Family, checkpoint: Checkpoint) -> bool:
    """Whether norm weights are stored less 1; some conversions undo that."""
    undone = family.no_offset_beside
    return family.unit_offset and not (undone and any(undone in name for name in checkpoint.names))


def _root(checkpoint: Checkpoint) -> str:
    for root in ROOTS:
        if any(name.startswith(f"{root}layers.") for name in checkpoint.names):
            return root
    return ROOTS[0]
