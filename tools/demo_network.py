"""The network of the demo model and the optimizer of its matrices, in PyTorch; training only.

The parameters are those of a Llama checkpoint; `Model.checkpoint` names them so.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT = 256  # up to this length, attention that is written out and compiled is the faster way


@dataclass(frozen=True)
class Shape:
    """The dimensions of the model; each a multiple of 64, so that groups of 64 quantize."""

    vocab: int = 1024
    hidden: int = 256
    intermediate: int = 512
    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    positions: int = 1024
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding of (B, H, T, Dh), halves paired as in Llama."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention; written out for short rows, where that is the faster way on a CPU."""
    length = q.shape[2]
    if length > SHORT:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    future = torch.full((length, length), -math.inf, dtype=q.dtype).triu(1)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + future
    mixed: Tensor = scores.softmax(-1, dtype=q.dtype) @ v
    return mixed


class Layer(nn.Module):
    """One Llama layer; the matrices carry the names of the checkpoint format."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden, kv = shape.hidden, shape.kv_heads * shape.head_dim
        sizes = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (shape.intermediate, hidden),
            "mlp.up_proj": (shape.intermediate, hidden),
            "mlp.down_proj": (hidden, shape.intermediate),
        }
        self.shape = shape
        self.matrices = nn.ParameterDict()
        for name, (rows, columns) in sizes.items():
            ends = name.endswith(("o_proj", "down_proj"))
            deviation = 0.02 / math.sqrt(2 * shape.layers) if ends else 0.02
            matrix = torch.randn(rows, columns) * deviation
            self.matrices[name.replace(".", "-")] = nn.Parameter(matrix)
        self.input_layernorm = nn.Parameter(torch.ones(hidden))
        self.post_attention_layernorm = nn.Parameter(torch.ones(hidden))

    def joined(self, *names: str) -> Tensor:
        return torch.cat([self.matrices[name] for name in names])

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (self.shape.hidden,), weight, self.shape.norm_epsilon)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:  # x (B, T, D)
        shape, (rows, length, _) = self.shape, x.shape
        h = self.norm(x, self.input_layernorm)
        names = ("self_attn-q_proj", "self_attn-k_proj", "self_attn-v_proj")
        heads = F.linear(h, self.joined(*names)).view(rows, length, -1, shape.head_dim)
        counts = [shape.heads, shape.kv_heads, shape.kv_heads]
        q, k, v = torch.split(heads.transpose(1, 2), counts, dim=1)
        share = shape.heads // shape.kv_heads
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        mixed = attention(q, k, v).transpose(1, 2).reshape(rows, length, -1)
        x = x + F.linear(mixed, self.matrices["self_attn-o_proj"])
        h = self.norm(x, self.post_attention_layernorm)
        gate, up = F.linear(h, self.joined("mlp-gate_proj", "mlp-up_proj")).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.matrices["mlp-down_proj"])


class Model(nn.Module):
    """Llama with tied embeddings."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocab, shape.hidden) * 0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.final_norm = nn.Parameter(torch.ones(shape.hidden))
        powers = torch.arange(0, shape.head_dim, 2) / shape.head_dim
        angles = torch.arange(shape.positions)[:, None] * shape.rope_theta**-powers
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, T, vocab) of ids (B, T)."""
        length = ids.shape[1]
        x = F.embedding(ids, self.embedding).bfloat16()
        cosine, sine = self.cosine[:length].bfloat16(), self.sine[:length].bfloat16()
        for layer in self.layers:
            x = layer(x, cosine, sine)
        x = F.rms_norm(x, (self.shape.hidden,), self.final_norm, self.shape.norm_epsilon)
        return F.linear(x, self.embedding)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self(ids).float().flatten(0, 1), targets.flatten())

    def checkpoint(self) -> dict[str, Tensor]:
        """The weights in bfloat16 under the names that Llama checkpoints use."""
        tensors = {
            "model.embed_tokens.weight": self.embedding,
            "model.norm.weight": self.final_norm,
        }
        for number, layer in enumerate(self.layers):
            for name, value in layer.named_parameters():
                short = name.removeprefix("matrices.").replace("-", ".")
                tensors[f"model.layers.{number}.{short}.weight"] = value
        return {name: value.detach().bfloat16().contiguous() for name, value in tensors.items()}


# Optimizer -----------------------------------------------------------------------------------


def orthogonal(stack: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices (N, R, C), by five Newton-Schulz steps.

    Coefficients from Muon, https://kellerjordan.github.io/posts/muon/.
    """
    tall = stack.shape[1] > stack.shape[2]
    x = (stack.mT if tall else stack).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    result: Tensor = x.mT if tall else x
    return result


class Muon:
    """Momentum whose every update is made orthogonal; matrices of one shape go together."""

    def __init__(self, matrices: list[nn.Parameter], momentum: float) -> None:
        shapes = sorted({tuple(matrix.shape) for matrix in matrices})
        self.groups = [[m for m in matrices if tuple(m.shape) == shape] for shape in shapes]
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.momentum = momentum

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradient = torch.stack([m.grad for m in group if m.grad is not None])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonal(gradient.lerp(buffer, self.momentum))
            scale = rate * max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.sub_(change, alpha=scale)
