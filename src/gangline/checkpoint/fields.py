"""Typed access to the fields of a config, with errors that name the file and the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gangline.checkpoint.shape import Activation, Attention
from gangline.errors import CheckpointError

MAX_SIZE = 2**31 - 1
MAX_LAYERS = 4096
MAX_HEAD_DIM = 512
MAX_HEADS = 4096
MAX_EXPERTS = 4096

# `hidden_act` of config.json → our name.
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}


class Fields:
    """A config's fields by name, checked; absent and null ones have the given default."""

    def __init__(self, file: Path, config: Mapping[str, Any]) -> None:
        self.file = file
        self.config = config

    def bad(self, name: str, value: object, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{self.file}: `{name}` is {str(value)[:200]!r}, expected {expected}",
            hint="The file is damaged, or made for something that this version cannot run.",
        )

    def get(self, name: str, default: Any = None) -> Any:
        value = self.config.get(name)
        return default if value is None else value

    def count(self, name: str, default: int | None = None, limit: int = MAX_SIZE) -> int:
        """A whole number from 1 to `limit`."""
        return self._whole(name, default, 1, limit)

    def count_or_zero(self, name: str, default: int = 0, limit: int = MAX_SIZE) -> int:
        return self._whole(name, default, 0, limit)

    def positive(self, name: str, default: float | None = None) -> float:
        return self.check_positive(name, self.get(name, default))

    def check_positive(self, name: str, value: Any) -> float:
        """`value`, which was found at `name`, if it is a positive number."""
        if type(value) not in (int, float) or not 0 < value < 1e30:
            raise self.bad(name, value, "a positive number")
        return float(value)

    def cap(self, name: str, default: float | None = None) -> float:
        """A positive number; 0 where there is none, or null."""
        if name in self.config and self.config[name] is None:
            return 0.0
        value = self.get(name, default)
        return 0.0 if value is None else self.check_positive(name, value)

    def part(self, name: str) -> Fields:
        """The fields of an object; none where it is absent."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise self.bad(name, value, "an object")
        return Fields(self.file, value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if type(value) is not bool:
            raise self.bad(name, value, "true or false")
        return value

    def whole_numbers(self, name: str) -> tuple[int, ...] | None:
        """A list of whole numbers; None where there is none."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(n) is int for n in value):
            raise self.bad(name, value, "a list of whole numbers")
        return tuple(value)

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse a field that would change the result in a way that cannot be run."""
        value = self.get(name)
        if value is not None and value not in allowed:
            raise self.bad(name, value, " or ".join(repr(one) for one in allowed))

    def choice(self, name: str, names: Sequence[str], default: str) -> str:
        value = self.get(name, default)
        if not isinstance(value, str) or value not in names:
            raise self.bad(name, value, f"one of {', '.join(names)}")
        return value

    # What most families share ------------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        return self.count("num_hidden_layers", limit=MAX_LAYERS)

    def heads(self, name: str, default: int | None = None) -> int:
        return self.count(name, default, limit=MAX_HEADS)

    def experts(self, name: str, default: int | None = None) -> int:
        return self.count(name, default, limit=MAX_EXPERTS)

    def head_dim(self, default: int | None = None) -> int:
        """`head_dim`, or the given default, or hidden size by heads."""
        value = self.count(
            "head_dim", default or self.count("hidden_size") // self.count("num_attention_heads")
        )
        if value % 2 or value > MAX_HEAD_DIM:
            raise self.bad("head_dim", value, f"an even number up to {MAX_HEAD_DIM}")
        return value

    def attention(
        self,
        *,
        scale: float | None = None,
        window: int = 0,
        soft_cap: float = 0.0,
        head_dim: int | None = None,
    ) -> Attention:
        """Attention of the usual fields; the scale is 1/sqrt(head_dim) unless given."""
        n_heads = self.heads("num_attention_heads")
        n_kv_heads = self.heads("num_key_value_heads", n_heads)
        if n_heads % n_kv_heads:
            raise self.bad("num_key_value_heads", n_kv_heads, f"a divisor of {n_heads}")
        dim = self.head_dim(head_dim)
        return Attention(
            n_heads,
            n_kv_heads,
            head_dim=dim,
            value_dim=dim,
            scale=dim**-0.5 if scale is None else scale,
            window=window,
            soft_cap=soft_cap,
        )

    def activation(self, name: str = "hidden_act", default: str = "silu") -> Activation:
        return ACTIVATIONS[self.choice(name, tuple(ACTIVATIONS), default)]

    def layer_types(self, known: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
        """`layer_types`, one of `known` for each layer."""
        found = self.get("layer_types", list(default))
        if not isinstance(found, list) or any(kind not in known for kind in found):
            raise self.bad("layer_types", found, f"a list of {' and '.join(known)}")
        if len(found) != self.n_layers:
            raise self.bad("layer_types", f"{len(found)} names", f"{self.n_layers}")
        return tuple(found)

    def _whole(self, name: str, default: int | None, least: int, limit: int) -> int:
        value = self.get(name, default)
        if type(value) is not int or not least <= value <= limit:
            raise self.bad(name, value, f"a whole number from {least} to {limit}")
        return value
