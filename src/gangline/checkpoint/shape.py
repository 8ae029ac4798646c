"""What a model is, as numbers: the part of `config.json` that planning and running need.

Knows no file and no array library, so that a node can import it without NumPy.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gangline.checkpoint.quantization import GroupAffine, Method, Quantization

__all__ = [
    "Activation",
    "CacheDtype",
    "GroupAffine",
    "ModelShape",
    "Quantization",
    "RopeKind",
    "RopeScaling",
    "Scoring",
]

# "swiglu_clamped" is gpt-oss's: gate at most 7, up within 7 of zero,
# gate sigmoid(1.702 gate) (up + 1).
Activation = Literal["silu", "gelu", "gelu_tanh", "relu2", "swiglu_clamped"]
Scoring = Literal["softmax", "softmax_chosen", "sigmoid"]
CacheDtype = Literal["f16", "f32"]
RopeKind = Literal["default", "linear", "llama3"]


class RopeScaling(msgspec.Struct, frozen=True):
    """How rotation frequencies are stretched beyond the context of pre-training.

    "linear" divides all of them by `factor`; "llama3" (Llama 3.1 and later) divides the slow ones,
    keeps the fast ones and blends between; the last three fields are its own.
    """

    kind: RopeKind = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes and facts of one model; all counts are positive, `n_heads % n_kv_heads == 0`."""

    architecture: str  # as in config.json: "LlamaForCausalLM"
    family: str  # ours: "llama"
    n_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int  # tokens the model was trained for
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling = RopeScaling()
    tied: bool = False  # the output matrix is the embedding
    activation: Activation = "silu"
    quantization: Method | None = None
    eos_ids: tuple[int, ...] = ()

    def cache_bytes_per_token(self, n_layers: int, dtype: CacheDtype = "f16") -> int:
        """Keys and values of one token in `n_layers` layers."""
        return 2 * self.n_kv_heads * self.head_dim * n_layers * (2 if dtype == "f16" else 4)
