"""The llama.cpp half of `benchmarks/engine.py`, run by an interpreter that has llama-cpp-python.

    python benchmarks/llama_side.py write CONFIG_JSON q4|q8 OUT.gguf
    python benchmarks/llama_side.py serve MODEL.gguf LANES CONTEXT

`write` makes a GGUF of the config's shape with random weights: every matrix Q4_0 or Q8_0, norms
F32, no vocabulary. `serve` loads it, says `{"ready": …}`, and answers one JSON line on stdin with
one on stdout until stdin closes. Knows nothing of Gangline.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from ctypes import c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GROUP_SIZE = 32  # of Q4_0 and Q8_0: a float16 scale, then the codes
BITS = {"q4": 4, "q8": 8}
BLOCK_BYTES = 16 << 20
BATCH_ROWS = 512  # llama.cpp's own defaults for n_batch (at most) and n_ubatch


def write(config: dict[str, Any], quant: str, out: Path) -> None:
    """Stream the tensors; memory for one block only."""
    import gguf

    kind = {"q4": gguf.GGMLQuantizationType.Q4_0, "q8": gguf.GGMLQuantizationType.Q8_0}[quant]
    bits = BITS[quant]
    n_experts = config.get("num_experts", 0)
    writer = gguf.GGUFWriter(out, "qwen3moe" if n_experts else "llama")
    rope = config["rope_scaling"]
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_name("random weights")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_tokenizer_model("no_vocab")
    if n_experts:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_expert_count(n_experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    tensors = list(tensors_of(config, head_dim))
    if rope:  # the same work with other angles: what they are does not matter here
        tensors.append(Entry("rope_freqs.weight", (head_dim // 2,)))
    for name, shape, quantized in tensors:
        if quantized:
            row_bytes = shape[-1] // GROUP_SIZE * (2 + GROUP_SIZE * bits // 8)
            stored = (*shape[:-1], row_bytes)
            writer.add_tensor_info(
                name, stored, np.dtype(np.uint8), math.prod(stored), raw_dtype=kind
            )
        else:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), math.prod(shape) * 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.Generator(np.random.SFC64(0))
    for _, shape, quantized in tensors:
        if quantized:
            rows = math.prod(shape[:-1])
            writer.write_tensor_data(Matrix(rows, shape[-1], bits, random))
        elif len(shape) == 1:
            writer.write_tensor_data(np.ones(shape, np.float32))
        else:
            values = random.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
            writer.write_tensor_data(values)
    writer.close()


class Entry(NamedTuple):
    """One tensor of a GGUF; those that are not quantized are float32."""

    name: str
    shape: tuple[int, ...]
    quantized: bool = False


class Matrix:
    """Looks enough like an array for `GGUFWriter.write_tensor_data`, and never is one."""

    def __init__(self, rows: int, columns: int, bits: int, random: np.random.Generator) -> None:
        self.shape = (rows, columns)
        self.bits, self.random = bits, random
        self.block_bytes = 2 + GROUP_SIZE * bits // 8
        self.n_blocks = rows * columns // GROUP_SIZE
        self.nbytes = self.n_blocks * self.block_bytes

    def tofile(self, stream: Any) -> None:
        """Uniform codes with a scale that gives weights of about N(0, 1/sqrt(K))."""
        scale = np.float16((self.shape[1] * (4**self.bits - 1) / 12) ** -0.5)
        scale_bytes = np.frombuffer(scale.tobytes(), np.uint8)
        most = BLOCK_BYTES // self.block_bytes
        for start in range(0, self.n_blocks, most):
            n = min(most, self.n_blocks - start)
            blocks = np.frombuffer(self.random.bytes(n * self.block_bytes), np.uint8)
            blocks = blocks.reshape(n, self.block_bytes).copy()
            blocks[:, :2] = scale_bytes
            blocks.tofile(stream)


def tensors_of(config: dict[str, Any], head_dim: int) -> Iterator[Entry]:
    """Named as llama.cpp has them."""
    hidden, n_experts = config["hidden_size"], config.get("num_experts", 0)
    q_rows = config["num_attention_heads"] * head_dim
    kv_rows = config["num_key_value_heads"] * head_dim
    yield Entry("token_embd.weight", (config["vocab_size"], hidden), True)
    for layer in range(config["num_hidden_layers"]):
        at = f"blk.{layer}"
        yield Entry(f"{at}.attn_norm.weight", (hidden,))
        yield Entry(f"{at}.attn_q.weight", (q_rows, hidden), True)
        yield Entry(f"{at}.attn_k.weight", (kv_rows, hidden), True)
        yield Entry(f"{at}.attn_v.weight", (kv_rows, hidden), True)
        yield Entry(f"{at}.attn_output.weight", (hidden, q_rows), True)
        yield Entry(f"{at}.ffn_norm.weight", (hidden,))
        if n_experts:
            width = config["moe_intermediate_size"]
            yield Entry(f"{at}.attn_q_norm.weight", (head_dim,))
            yield Entry(f"{at}.attn_k_norm.weight", (head_dim,))
            yield Entry(f"{at}.ffn_gate_inp.weight", (n_experts, hidden))
            yield Entry(f"{at}.ffn_gate_exps.weight", (n_experts, width, hidden), True)
            yield Entry(f"{at}.ffn_up_exps.weight", (n_experts, width, hidden), True)
            yield Entry(f"{at}.ffn_down_exps.weight", (n_experts, hidden, width), True)
        else:
            width = config["intermediate_size"]
            yield Entry(f"{at}.ffn_gate.weight", (width, hidden), True)
            yield Entry(f"{at}.ffn_up.weight", (width, hidden), True)
            yield Entry(f"{at}.ffn_down.weight", (hidden, width), True)
    yield Entry("output_norm.weight", (hidden,))
    if not config["tie_word_embeddings"]:
        yield Entry("output.weight", (config["vocab_size"], hidden), True)


class Llama:
    """A loaded model with a context of `lanes` sequences of `context` tokens each."""

    def __init__(self, path: str, lanes: int, context: int) -> None:
        import llama_cpp

        self.api = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, c_void_p(0))
        llama_cpp.llama_backend_init()
        began_s = time.perf_counter()
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.load_s = time.perf_counter() - began_s
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = lanes * context
        parameters.n_seq_max = lanes
        parameters.n_batch = parameters.n_ubatch = BATCH_ROWS
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context of {lanes} times {context} tokens")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(BATCH_ROWS, 0, 1)
        self.random = np.random.default_rng(0)

    def prefill(self, n_tokens: int, lane: int = 0) -> float:
        """Fill a lane from its start; seconds until the logits of the last token are there."""
        self.api.llama_memory_seq_rm(self.memory, lane, -1, -1)
        ids = self.random.integers(0, self.vocab, n_tokens).tolist()
        began_s = time.perf_counter()
        for start in range(0, n_tokens, BATCH_ROWS):
            chunk = ids[start : start + BATCH_ROWS]
            last = start + len(chunk) == n_tokens
            self._decode(
                [
                    (id, start + row, lane, last and row == len(chunk) - 1)
                    for row, id in enumerate(chunk)
                ]
            )
        self.api.llama_get_logits_ith(self.context, -1)  # waits for the result
        return time.perf_counter() - began_s

    def decode(self, n_steps: int, lanes: int, depth: int) -> float:
        """Seconds of `n_steps` steps of all lanes from position `depth` on, largest logits next."""
        for lane in range(lanes):
            self.api.llama_memory_seq_rm(self.memory, lane, depth, -1)
        ids = self.random.integers(0, self.vocab, lanes).tolist()
        began_s = time.perf_counter()
        for step in range(n_steps):
            self._decode([(id, depth + step, lane, True) for lane, id in enumerate(ids)])
            for lane in range(lanes):
                logits = self.api.llama_get_logits_ith(self.context, lane)
                ids[lane] = int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax())
        return time.perf_counter() - began_s

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Run rows of (token, position, lane, whether its logits are wanted)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for row, (id, position, lane, wanted) in enumerate(rows):
            batch.token[row] = id
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = lane
            batch.logits[row] = wanted
        status = self.api.llama_decode(self.context, batch)
        if status:
            raise SystemExit(f"llama_decode failed with {status}")


def serve(path: str, lanes: int, context: int) -> None:
    """Answer requests `{"do": "prefill"|"decode", "threads": …, …}` with `{"seconds": …}`."""
    llama = Llama(path, lanes, context)
    system = llama.api.llama_print_system_info().decode()
    _say({"ready": system, "load_s": llama.load_s})
    for line in sys.stdin:
        request = json.loads(line)
        threads = request["threads"]
        llama.api.llama_set_n_threads(llama.context, threads, threads)
        if request["do"] == "prefill":
            seconds = llama.prefill(request["tokens"], request.get("lane", 0))
        else:
            seconds = llama.decode(request["tokens"], request["lanes"], request["depth"])
        _say({"seconds": seconds})


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    if sys.argv[1] == "write":
        write(json.loads(Path(sys.argv[2]).read_text()), sys.argv[3], Path(sys.argv[4]))
    else:
        serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))


if __name__ == "__main__":
    main()
