"""Compares every family with Hugging Face transformers, or records what transformers computes.

    python -m tools.conformance record              # tests/fixtures/families/*.npz
    python -m tools.conformance check --seeds 5     # live, against other random weights

Needs torch and transformers, which gangline itself does not. The weights are random and rounded to
bf16, in which they are stored; transformers computes with the same values in float32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tests.engine.conformance import Case, largest_error

from gangline.checkpoint.headers import read_entries
from tools.conformance_cases import CASES, SMALL

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "families"
LENGTHS = (70, 19, 27)  # tokens of the prompts; longer than all windows, the first than a block


def make_case(name: str, folder: Path, seed: int, dtype: torch.dtype = torch.bfloat16) -> Case:
    """Write the checkpoint of a case into `folder`; its prompts and transformers' logits."""
    config = {**SMALL, **CASES[name]}
    torch.manual_seed(zlib.crc32(f"{name} {seed}".encode()))
    model = _model(config)
    with torch.no_grad():
        for path, tensor in model.state_dict().items():
            tensor.copy_(_values(path, tensor).to(torch.bfloat16))
        generator = np.random.default_rng([seed, len(name)])
        prompts = [generator.integers(0, config["vocab_size"], n) for n in LENGTHS]
        logits = [model(torch.from_numpy(ids)[None]).logits[0].numpy() for ids in prompts]
    model.to(dtype).save_pretrained(folder)
    return Case(folder, [ids.astype(np.int32) for ids in prompts], logits)


def _model(config: dict[str, Any]) -> Any:
    architecture = getattr(transformers, config["architectures"][0])
    own = architecture.config_class(**config)
    own._attn_implementation = "eager"
    own._experts_implementation = "eager"
    return architecture(own).eval().float()


def _values(path: str, tensor: torch.Tensor) -> torch.Tensor:
    """Matrices that keep the size of what they multiply, vectors around what they begin as."""
    noise = torch.randn(tensor.shape)
    if path.endswith("embed_tokens.weight"):
        return noise
    if tensor.ndim == 1:
        return 0.3 * noise + tensor if torch.isfinite(tensor).all() else noise
    if path.endswith("_bias"):  # of experts, stacked
        return 0.3 * noise
    spread = 3 if "experts" in path and "gate" in path else 1  # reaches where gpt-oss clamps
    return noise * spread * tensor.shape[-1] ** -0.5


def record(names: list[str]) -> None:
    FIXTURES.mkdir(exist_ok=True)
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            case = make_case(name, folder, 0)
            arrays: dict[str, np.ndarray] = {}
            for tensor, entry in read_entries(folder).items():
                assert entry.dtype == "BF16", f"{tensor} is {entry.dtype}"
                raw = np.fromfile(entry.file, np.uint16, entry.n_bytes // 2, offset=entry.start)
                arrays[f"weights/{tensor}"] = raw.reshape(entry.shape)
            config = json.loads((folder / "config.json").read_text())
            arrays["config"] = np.frombuffer(json.dumps(config).encode(), np.uint8)
            for number, (ids, logits) in enumerate(zip(case.prompts, case.logits, strict=True)):
                arrays[f"ids/{number}"], arrays[f"logits/{number}"] = ids, logits
            file = FIXTURES / f"{name}.npz"
            np.savez_compressed(file, allow_pickle=False, **arrays)
            error = largest_error(case, "reference")
            print(f"{name:20} {file.stat().st_size / 1e3:6.1f} kB  reference {error:.1e}")


def check(names: list[str], seeds: int, backend: str) -> None:
    # Some back ends compute in the precision of the weights.
    dtype = torch.float32 if backend in ("mlx", "torch") else torch.bfloat16
    worst = 0.0
    for name in names:
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as temporary:
                case = make_case(name, Path(temporary), seed, dtype)
                error = largest_error(case, backend)
            worst = max(worst, error)
            print(f"{name:20} seed {seed}  {backend} {error:.1e}", flush=True)
    print(f"largest relative error {worst:.1e}, the bound is 1e-4")
    if worst > 1e-4:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("record", "check"))
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backend", default="reference")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.action == "record":
        record(chosen.names)
    else:
        check(chosen.names, chosen.seeds, chosen.backend)


if __name__ == "__main__":
    main()
