"""What a model is, as numbers: the part of `config.json` that planning and running need.

Knows no file and no array library, so that a node can import it without NumPy.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gangline.checkpoint.quantization import Method

# "swiglu_clamped" is gpt-oss's: gate at most 7, up within 7 of zero,
# gate sigmoid(1.702 gate) (up + 1).
Activation = Literal["silu", "gelu", "gelu_tanh", "relu2", "swiglu_clamped"]
Scoring = Literal["softmax", "softmax_chosen", "sigmoid"]
CacheDtype = Literal["f16", "f32"]
RopeKind = Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]
HeadNorm = Literal["none", "head", "whole"]  # of queries and keys: each head, or all as one row


class RopeScaling(msgspec.Struct, frozen=True):
    """How rotation frequencies are stretched beyond the context of pre-training.

    "linear" divides all of them by `factor`; "dynamic" raises theta where more than the original
    context is loaded; "llama3" (Llama 3.1 and later) divides the slow ones, keeps the fast ones and
    blends between (the two frequency factors); "yarn" (https://arxiv.org/abs/2309.00071) does the
    same with a ramp between `beta_fast` and `beta_slow` turns over the original context; "longrope"
    (https://arxiv.org/abs/2402.13753) divides each by a factor of its own, `long` ones where more
    than the original context is loaded.
    """

    kind: RopeKind = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True  # the ramp's ends are whole numbers
    magnitude: float = 1.0  # of cosines and sines
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()


class Rope(msgspec.Struct, frozen=True):
    """Rotary positions of one kind of layer."""

    dim: int  # R: the first R numbers of a head rotate
    theta: float
    scaling: RopeScaling = RopeScaling()
    neighbours: bool = False  # the checkpoint's pairs are (2 i, 2 i + 1), not (i, i + R/2)


class Attention(msgspec.Struct, frozen=True):
    """Sizes and rules of one layer's attention; query head h uses key head h KV // H."""

    n_heads: int
    n_kv_heads: int
    head_dim: int  # Dh, of queries and keys
    value_dim: int  # Dv; of values and of the result
    scale: float  # of the scores
    window: int = 0  # a row sees itself and the window - 1 positions before; 0: all before it
    soft_cap: float = 0.0  # scores become cap tanh(score / cap); 0: they stay
    shared_values: bool = False  # values are the first Dv numbers of the keys (latent attention)

    @property
    def width(self) -> int:
        """Columns of the fused rows: H queries, then KV keys, then KV values unless shared."""
        own = 0 if self.shared_values else self.n_kv_heads * self.value_dim
        return (self.n_heads + self.n_kv_heads) * self.head_dim + own


class Routing(msgspec.Struct, frozen=True):
    """How a row chooses its experts from scores (E,).

    `scoring`: "softmax" over all experts before the choice, "softmax_chosen" over the chosen ones
    after it, or "sigmoid" of each. With a correction vector the choice is by score + correction,
    the weights are of the scores alone. With groups, only the experts of the `n_active_groups`
    groups with the largest sum of their two best (corrected) scores can be chosen. Of equal scores
    the lower expert wins.
    """

    n_experts: int
    n_active: int
    scoring: Scoring = "softmax"
    renormalize: bool = False  # weights of the chosen are divided by their sum
    scale: float = 1.0  # of the weights, at the end
    n_groups: int = 1
    n_active_groups: int = 1


class DeltaNet(msgspec.Struct, frozen=True):
    """Sizes of a gated delta rule (linear attention): https://arxiv.org/abs/2412.06464.

    Key head h of n_key_heads serves value heads h n_value_heads / n_key_heads and the following.
    """

    n_key_heads: int
    n_value_heads: int
    key_dim: int
    value_dim: int
    kernel: int  # taps of the causal convolution before it

    @property
    def width(self) -> int:
        """Columns of the mixed rows: queries, keys (n_key_heads key_dim each), then values."""
        return 2 * self.n_key_heads * self.key_dim + self.n_value_heads * self.value_dim


class SelfAttention(msgspec.Struct, frozen=True):
    """Attention whose keys and values are in the cache."""

    rules: Attention
    rope: Rope | None  # None: positions do not enter
    head_norm: HeadNorm = "none"
    sinks: bool = False
    gated: bool = False  # the result is multiplied by sigmoid(gate), gates are made like queries

    @property
    def cache_numbers_per_token(self) -> int:
        return self.rules.n_kv_heads * (self.rules.head_dim + self.rules.value_dim)

    @property
    def state_numbers_per_lane(self) -> int:
        return 0


class LatentAttention(msgspec.Struct, frozen=True):
    """Attention over one latent vector per token: https://arxiv.org/abs/2405.04434, section 2.1.

    Queries are taken into the space of the latent, so that the latent is key and value of all
    heads; the cache holds it and one rotating key.
    """

    n_heads: int
    query_rank: int  # 0: queries come from one matrix
    latent: int
    plain_dim: int  # numbers of a query's head that do not rotate
    rope: Rope
    value_dim: int  # of a head, before the output matrix
    scale: float

    @property
    def rules(self) -> Attention:
        width = self.latent + self.rope.dim
        return Attention(self.n_heads, 1, width, self.latent, self.scale, shared_values=True)

    @property
    def cache_numbers_per_token(self) -> int:
        return self.latent + self.rope.dim

    @property
    def state_numbers_per_lane(self) -> int:
        return 0


class DeltaAttention(msgspec.Struct, frozen=True):
    """Linear attention by a gated delta rule: a state per lane, nothing per token."""

    rules: DeltaNet

    @property
    def cache_numbers_per_token(self) -> int:
        return 0

    @property
    def state_numbers_per_lane(self) -> int:
        rules = self.rules
        matrices = rules.n_value_heads * rules.key_dim * rules.value_dim
        return (rules.kernel - 1) * rules.width + matrices


class Mlp(msgspec.Struct, frozen=True):
    """A gated MLP of `width` hidden numbers."""

    width: int


class Mixture(msgspec.Struct, frozen=True):
    """A mixture of experts, each a gated MLP of `width`, and perhaps one that all rows pass."""

    routing: Routing
    width: int
    correction: bool = False  # a vector corrects the scores for the choice
    shared_width: int = 0  # 0: no shared expert
    shared_gate: bool = False  # its result is multiplied by sigmoid of one number per row


class LayerShape(msgspec.Struct, frozen=True):
    """What one layer does; where its norms are is its family's affair."""

    mixer: SelfAttention | LatentAttention | DeltaAttention
    mlp: Mlp | Mixture


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes and facts of one model; all counts are positive."""

    architecture: str  # as in config.json: "LlamaForCausalLM"
    family: str  # ours: "llama"
    layers: tuple[LayerShape, ...]
    hidden: int
    vocab: int
    context: int  # tokens the model was trained for
    norm_eps: float
    tied: bool = False  # the output matrix is the embedding
    activation: Activation = "silu"
    embedding_scale: float = 1.0
    residual_scale: float = 1.0  # of what each half of a layer adds
    logit_scale: float = 1.0
    logit_cap: float = 0.0  # logits become cap tanh(logit / cap); 0: they stay
    quantization: Method | None = None
    eos_ids: tuple[int, ...] = ()

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    def cache_bytes_per_token(self, dtype: CacheDtype = "f16") -> tuple[int, ...]:
        """Keys and values of one token, for each layer."""
        n_bytes = 2 if dtype == "f16" else 4
        return tuple(layer.mixer.cache_numbers_per_token * n_bytes for layer in self.layers)

    def state_bytes_per_lane(self) -> tuple[int, ...]:
        """What a layer remembers of a lane however long it is, for each layer; float32."""
        return tuple(layer.mixer.state_numbers_per_lane * 4 for layer in self.layers)
