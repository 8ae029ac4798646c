"""Which tensors a checkpoint of a config has: names, dtypes and shapes, in the order of a file.

Dense (bf16) ones are named as Hugging Face's transformers names them, quantized ones as MLX does:
they differ for experts only, which MLX stacks. Knows no bytes and no NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gangline.checkpoint.config import shape_of
from gangline.checkpoint.families import FAMILIES, Family
from gangline.checkpoint.headers import DTYPE_BYTES
from gangline.checkpoint.shape import (
    DeltaAttention,
    LatentAttention,
    Mixture,
    Mlp,
    ModelShape,
    SelfAttention,
)

GROUP_SIZE = 64  # MLX's default
QUANTS = {"q4": 4, "q8": 8, "bf16": None}  # name → bits per weight; None is dense
_GATE_BITS = 8  # of the router of experts, whatever the others have (mlx-lm, qwen3_moe.py)

Content = Literal["one", "zero", "dense", "codes", "scales", "offsets"]


class Part(NamedTuple):
    """One tensor of a file; `columns` and `bits` are those of the matrix that it belongs to."""

    name: str
    dtype: str  # as safetensors names it
    shape: tuple[int, ...]
    content: Content
    columns: int = 0
    bits: int = 0

    @property
    def n_bytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


class _Tensor(NamedTuple):
    """A matrix (its last dimension are the columns) or a vector, as a family names it."""

    name: str
    shape: tuple[int, ...]
    content: Content = "dense"
    quantized: Literal["as all", "as routers", "never"] = "as all"


def parts_of(config: Mapping[str, Any], bits: int | None) -> list[Part]:
    """All tensors of the checkpoint; with `bits` every matrix is quantized in groups."""
    return [part for tensor in _Layout(config, bits).tensors() for part in _parts(tensor, bits)]


def quantization_of(config: Mapping[str, Any], bits: int) -> dict[str, Any]:
    """MLX's `quantization` for the config: one form for all, and the modules that differ."""
    form: dict[str, Any] = {"group_size": GROUP_SIZE, "bits": bits}
    own = {"group_size": GROUP_SIZE, "bits": _GATE_BITS}
    return form | {
        tensor.name.removesuffix(".weight"): dict(own)
        for tensor in _Layout(config, bits).tensors()
        if tensor.quantized == "as routers"
    }


class _Layout:
    """Goes through a model as its family describes it."""

    def __init__(self, config: Mapping[str, Any], bits: int | None) -> None:
        self.shape: ModelShape = shape_of(config, {}, Path())
        self.family: Family = FAMILIES[self.shape.family]
        self.stacks = bits is not None
        self.biased = bool(config.get("attention_bias"))

    def tensors(self) -> Iterator[_Tensor]:
        shape = self.shape
        yield _Tensor("model.embed_tokens.weight", (shape.vocab, shape.hidden))
        for number in range(shape.n_layers):
            yield from self._layer(f"model.layers.{number}.", number)
        yield self._norm("model.norm", shape.hidden)
        if not shape.tied:
            yield _Tensor("lm_head.weight", (shape.vocab, shape.hidden))

    def _layer(self, at: str, number: int) -> Iterator[_Tensor]:
        names, layer, hidden = self.family.names, self.shape.layers[number], self.shape.hidden
        norms = (
            names.attention_norm,
            names.attention_output_norm,
            names.mlp_norm,
            names.mlp_output_norm,
        )
        yield from (self._norm(at + name, hidden) for name in norms if name)
        if isinstance(layer.mixer, LatentAttention):
            yield from self._latent(f"{at}self_attn.", layer.mixer)
        else:
            assert not isinstance(layer.mixer, DeltaAttention), "no shape has one"
            yield from self._attention(at, layer.mixer)
        if isinstance(layer.mlp, Mixture):
            yield from self._mixture(at, layer.mlp)
        else:
            yield from self._mlp(at, layer.mlp)

    def _attention(self, at: str, mixer: SelfAttention) -> Iterator[_Tensor]:
        names, rules, hidden = self.family.names, mixer.rules, self.shape.hidden
        assert not names.qkv and not mixer.gated, "no shape has them"
        n_q, n_kv = rules.n_heads * rules.head_dim, rules.n_kv_heads * rules.head_dim
        for name, shape in (
            (names.query, (n_q, hidden)),
            (names.key, (n_kv, hidden)),
            (names.value, (n_kv, hidden)),
            (names.attention_output, (hidden, n_q)),
        ):
            yield _Tensor(f"{at}{name}.weight", shape)
            if self.biased:
                yield _Tensor(f"{at}{name}.bias", shape[:1], "zero")
        if mixer.head_norm != "none":
            yield self._norm(at + names.query_norm, rules.head_dim)
            yield self._norm(at + names.key_norm, rules.head_dim)
        if mixer.sinks:
            yield _Tensor(at + names.sinks, (rules.n_heads,), "zero")

    def _latent(self, at: str, mixer: LatentAttention) -> Iterator[_Tensor]:
        hidden, n_heads, turning = self.shape.hidden, mixer.n_heads, mixer.rope.dim
        queries = n_heads * (mixer.plain_dim + turning)
        yield _Tensor(f"{at}q_a_proj.weight", (mixer.query_rank, hidden))
        yield self._norm(f"{at}q_a_layernorm", mixer.query_rank)
        yield _Tensor(f"{at}q_b_proj.weight", (queries, mixer.query_rank))
        yield _Tensor(f"{at}kv_a_proj_with_mqa.weight", (mixer.latent + turning, hidden))
        yield self._norm(f"{at}kv_a_layernorm", mixer.latent)
        ups = n_heads * (mixer.plain_dim + mixer.value_dim)
        yield _Tensor(f"{at}kv_b_proj.weight", (ups, mixer.latent))
        yield _Tensor(f"{at}o_proj.weight", (hidden, n_heads * mixer.value_dim))

    def _mlp(self, at: str, mlp: Mlp) -> Iterator[_Tensor]:
        names = self.family.names
        assert not names.gate_up, "no shape has it"
        yield from self._gated((at + names.gate, at + names.up, at + names.down), mlp.width)

    def _mixture(self, at: str, mlp: Mixture) -> Iterator[_Tensor]:
        names, n_experts = self.family.names, mlp.routing.n_experts
        router = at + names.router
        routes = (n_experts, self.shape.hidden)
        # MLX leaves a router dense that is no plain matrix: DeepSeek's, with its correction.
        how: Literal["as routers", "never"] = "never" if mlp.correction else "as routers"
        yield _Tensor(f"{router}.weight", routes, quantized=how)
        if mlp.correction:
            yield _Tensor(at + names.correction, (n_experts,), "zero")
        if self.family.interleaved:
            yield _Tensor(f"{router}.bias", (n_experts,), "zero")
        if self.stacks:
            module = at + names.stacked
            modules = f"{module}.gate_proj", f"{module}.up_proj", f"{module}.down_proj"
            yield from self._gated(modules, mlp.width, (n_experts,), self.family.interleaved)
        elif self.family.interleaved:
            yield from self._fused(f"{at}mlp.experts", mlp)
        else:
            for expert in range(n_experts):
                module = at + names.expert.format(expert=expert)
                kinds = names.expert_gate, names.expert_up, names.expert_down
                yield from self._gated(tuple(f"{module}.{kind}" for kind in kinds), mlp.width)
        if mlp.shared_width:
            module = at + names.shared
            modules = f"{module}.gate_proj", f"{module}.up_proj", f"{module}.down_proj"
            yield from self._gated(modules, mlp.shared_width)

    def _gated(
        self,
        modules: tuple[str, ...],
        width: int,
        stacked: tuple[int, ...] = (),
        biased: bool = False,
    ) -> Iterator[_Tensor]:
        """Gate, up and down."""
        hidden = self.shape.hidden
        shapes = (width, hidden), (width, hidden), (hidden, width)
        for module, shape in zip(modules, shapes, strict=True):
            yield _Tensor(f"{module}.weight", (*stacked, *shape))
            if biased:
                yield _Tensor(f"{module}.bias", (*stacked, shape[0]), "zero")

    def _fused(self, module: str, mlp: Mixture) -> Iterator[_Tensor]:
        """As gpt-oss has them where they are dense: transposed."""
        n_experts, width, hidden = mlp.routing.n_experts, mlp.width, self.shape.hidden
        yield _Tensor(f"{module}.gate_up_proj", (n_experts, hidden, 2 * width))
        yield _Tensor(f"{module}.gate_up_proj_bias", (n_experts, 2 * width), "zero")
        yield _Tensor(f"{module}.down_proj", (n_experts, width, hidden))
        yield _Tensor(f"{module}.down_proj_bias", (n_experts, hidden), "zero")

    def _norm(self, module: str, size: int) -> _Tensor:
        content: Content = "zero" if self.family.unit_offset else "one"
        return _Tensor(f"{module}.weight", (size,), content)


def _parts(tensor: _Tensor, bits: int | None) -> Iterator[Part]:
    name, shape, content, quantized = tensor
    columns = shape[-1]
    if content != "dense":
        yield Part(name, "BF16" if bits is None else "F16", shape, content)
        return
    if bits is None or quantized == "never":
        yield Part(name, "BF16", shape, "dense", columns)
        return
    bits = _GATE_BITS if quantized == "as routers" else bits
    module, groups = name.removesuffix(".weight"), (*shape[:-1], columns // GROUP_SIZE)
    yield Part(name, "U32", (*shape[:-1], columns * bits // 32), "codes", columns, bits)
    yield Part(f"{module}.scales", "F16", groups, "scales", columns, bits)
    yield Part(f"{module}.biases", "F16", groups, "offsets", columns, bits)
