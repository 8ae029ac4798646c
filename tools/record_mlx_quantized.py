"""Record what MLX means by its quantized form, for tests that have no MLX.

    pip install 'mlx[cpu]' && python -m tools.record_mlx_quantized

Writes `tests/fixtures/mlx_quantized.npz`: per bits and group size the packed words, scales and
biases that `mx.quantize` made of random numbers, and the float32 that `mx.dequantize` gives back.
"""

from pathlib import Path

import mlx.core as mx
import numpy as np

FIXTURE = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "mlx_quantized.npz"


def main() -> None:
    random = np.random.default_rng(7)
    arrays = {}
    for bits in (4, 8, 2, 3, 5, 6):
        for group_size in (32, 64, 128):
            w = mx.array(random.standard_normal((6, 256)).astype(np.float32))
            packed, scales, biases = mx.quantize(w, group_size=group_size, bits=bits)
            back = mx.dequantize(packed, scales, biases, group_size=group_size, bits=bits)
            name = f"{bits}.{group_size}"
            arrays[f"{name}.packed"] = np.array(packed)
            arrays[f"{name}.scales"] = np.array(scales)
            arrays[f"{name}.biases"] = np.array(biases)
            arrays[f"{name}.values"] = np.array(back)
    w = mx.array(random.standard_normal((6, 256)).astype(np.float32))
    packed, scales = mx.quantize(w, mode="mxfp4")
    arrays["mxfp4.packed"], arrays["mxfp4.scales"] = np.array(packed), np.array(scales)
    arrays["mxfp4.values"] = np.array(
        mx.dequantize(packed, scales, mode="mxfp4").astype(mx.float32)
    )
    np.savez_compressed(FIXTURE, allow_pickle=False, **arrays)
    print(f"{FIXTURE}: MLX {mx.__version__}")


if __name__ == "__main__":
    main()
