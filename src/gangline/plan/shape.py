"""What a planner needs to know of a model: bytes, not arithmetic; knows no file and no clock."""

from __future__ import annotations

import msgspec


class ModelCost(msgspec.Struct, frozen=True):
    """The bytes of a model, by the places where they can lie."""

    layer_bytes: tuple[int, ...]  # weights of each layer
    embedding_bytes: int
    output_bytes: int  # 0 when the output matrix is the embedding table
    kv_bytes_per_token: int  # keys and values of one token in one layer
    hidden_size: int
    max_context: int  # tokens the model was trained for

    @property
    def n_layers(self) -> int:
        return len(self.layer_bytes)

    @property
    def head_bytes(self) -> int:
        """Weights that only the head holds."""
        return self.embedding_bytes + self.output_bytes

    @property
    def head_read_bytes(self) -> int:
        """What the head reads per token besides its layers: the output matrix, tied or not."""
        return self.output_bytes or self.embedding_bytes
