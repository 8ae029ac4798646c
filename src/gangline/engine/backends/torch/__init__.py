"""PyTorch: NVIDIA, AMD and Intel GPUs, Apple's through MPS, and any CPU.

Hidden states are float32; `weights.py` says in which precision products are computed. Steps in
which every lane has one row go through fixed buffers, and through a CUDA graph where there is
CUDA (`recorder.py`). Only the CPU has been run: docs/backends.md lists what has not.
"""

from gangline.engine.backends.torch.backend import Torch, device_title

__all__ = ["Torch", "device_title"]
