"""MLX: Apple silicon through Metal; on Linux its CPU build runs the same code, for tests.

The graph of a step is built lazily and evaluated once, when its result becomes NumPy. Hidden
states are float32; `weights.py` says in which precision products are computed.
"""

from gangline.engine.backends.mlx.backend import Mlx

__all__ = ["Mlx"]
