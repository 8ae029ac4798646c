"""What the extension refuses, how its pool behaves, and that a process with it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from gangline import _kernels
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends import open_backend
from gangline.engine.backends.cpu import Cpu
from gangline.engine.operations import Attention, Batch
from gangline.errors import ProtocolError
from tests.kernels.arrays import matrix, same_bits, spread


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("slots", "starts", "counts"),
    [
        ((4,), (0,), (1,)),
        ((-1,), (0,), (1,)),
        ((0,), (-1,), (1,)),
        ((0,), (0,), (0,)),
        ((0,), (0,), (-5,)),
        ((0,), (30,), (3,)),
        ((0,), (2**31 - 1,), (2**31 - 1,)),
        ((1, 1), (0, 5), (1, 1)),
        ((0, 1), (0,), (1, 1)),
        ((0, 1, 2, 3, 0), (0, 0, 0, 0, 0), (1, 1, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_batch_that_does_not_fit_is_refused(
    backend: str, slots: tuple[int, ...], starts: tuple[int, ...], counts: tuple[int, ...]
) -> None:
    batch = Batch(ints(*slots), ints(*starts), ints(*counts), ints())
    with pytest.raises(ProtocolError):
        open_backend(backend, 1).batch(batch, 4, 32)


def test_shapes_that_do_not_fit_are_refused() -> None:
    ops = Cpu(1)
    x, w = (
        np.zeros((2, 16), np.float32),
        ops.weight(Tensor("w", "f32", (3, 16), np.zeros((3, 16), np.float32))),
    )
    table_of = ops.table(Tensor("w", "f32", (3, 16), np.zeros((3, 16), np.float32)))
    batch = ops.batch(Batch.of(ints(0), ints(0), ints(2)), 2, 32)
    rules = Attention(1, 1, 4, 4, 1.0)
    cache = ops.cache(1, 32, rules)
    out, sinks = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
    fitting = ops.batch(Batch.of(ints(0), ints(0), ints(2)), 1, 32)
    heads = ops.head_weight(Tensor("w", "f32", (4, 8), np.zeros((4, 8), np.float32)), 2)
    qkv, table = np.zeros((2, 12), np.float32), np.zeros((31, 2, 2), np.float32)
    wrong = [
        lambda: _kernels.linear(x[:, :8].copy(), w, None, np.zeros((2, 3), np.float32), False),
        lambda: _kernels.linear(x, w, None, np.zeros((2, 4), np.float32), False),
        lambda: _kernels.linear(x, w, np.zeros(2, np.float32), np.zeros((2, 3), np.float32), False),
        lambda: _kernels.embed(table_of, ints(3), 1.0, np.zeros((1, 16), np.float32)),
        lambda: _kernels.embed(table_of, ints(-1), 1.0, np.zeros((1, 16), np.float32)),
        lambda: _kernels.rms_norm(x, np.zeros(15, np.float32), 1e-5, x.copy()),
        lambda: _kernels.rope(qkv, table, batch, 1, 1, 4),  # table shorter than the context
        lambda: _kernels.rope(qkv, np.zeros((32, 2, 3), np.float32), batch, 1, 1, 4),
        lambda: _kernels.rope(qkv, np.zeros((32, 2, 2), np.float32), batch, 1, 3, 4),
        lambda: _kernels.attend(qkv, cache, batch, 1, 1.0, 0, 0.0, None, out),  # lanes
        lambda: _kernels.attend(qkv, cache, fitting, 2, 1.0, 0, 0.0, None, out),
        lambda: _kernels.attend(qkv, cache, fitting, 1, 1.0, -1, 0.0, None, out),
        lambda: _kernels.attend(qkv, cache, fitting, 1, 1.0, 0, 0.0, sinks, out),
        lambda: ops.cache(1, 32, Attention(1, 1, 4, 5, 1.0, shared_values=True)),
        lambda: ops.cache(1, 32, Attention(1, 1, 4, 513, 1.0)),
        lambda: ops.head_norm(qkv, np.zeros(3, np.float32), np.zeros(4, np.float32), rules, 1e-5),
        lambda: ops.linear_heads(x[:, :8].copy(), heads),
        lambda: ops.add(x, x[:1].copy()),
        lambda: ops.sigmoid_gate(x, np.zeros((2, 3), np.float32)),
        lambda: ops.head_weight(Tensor("w", "f32", (4, 8), np.zeros((4, 8), np.float32)), 3),
        lambda: ops.gated_mlp(x, w, w, "silu", x),
        lambda: ops.weight(Tensor("w", "f32", (4, 16), np.zeros((3, 16), np.float32))),
        lambda: ops.cache(1, 32, Attention(1, 1, 1024, 4, 1.0)),
        lambda: _kernels.use_path("mmx"),
        lambda: _kernels.set_threads(0),
    ]
    for number, call in enumerate(wrong):
        with pytest.raises(ValueError):
            call()
            pytest.fail(f"call {number} was not refused")


def test_arrays_of_another_kind_are_refused() -> None:
    """Nothing is converted behind the caller's back: results would go into a copy."""
    ops = Cpu(1)
    w = ops.weight(Tensor("w", "f32", (3, 16), np.zeros((3, 16), np.float32)))
    x, y = np.zeros((2, 16), np.float32), np.zeros((2, 3), np.float32)
    read_only = y.copy()
    read_only.flags.writeable = False
    for wrong_y in (y.astype(np.float64), np.zeros((3, 2), np.float32).T, read_only):
        with pytest.raises(TypeError):
            _kernels.linear(x, w, None, wrong_y, False)


def test_a_weight_gives_its_memory_back() -> None:
    data = np.zeros((3, 16), np.float32)
    before = sys.getrefcount(data)
    w = Cpu(1).weight(Tensor("w", "f32", (3, 16), data))
    assert sys.getrefcount(data) > before
    del w
    assert sys.getrefcount(data) == before


def test_a_weight_keeps_its_memory_alive() -> None:
    ops = Cpu(1)
    random = np.random.default_rng(0)
    x = spread(random, 1, 512)
    tensor = matrix(random, "f32", 64, 512)
    w = ops.weight(tensor)
    expected = ops.linear(x, w)
    del tensor
    waste = [np.full(64 * 512, 7.0, np.float32) for _ in range(20)]
    assert same_bits(ops.linear(x, w), expected)
    del waste


def test_callers_on_many_threads_do_not_disturb_each_other() -> None:
    """One of them has the pool, the others work alone; all get the right numbers."""
    ops = Cpu(3)
    random = np.random.default_rng(1)
    w = ops.weight(matrix(random, "bf16", 500, 256))
    inputs = [spread(random, 16, 256) for _ in range(4)]
    expected = [ops.linear(x, w) for x in inputs]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(60):
            if not same_bits(ops.linear(inputs[number], w), expected[number]):
                wrong.append(number)

    callers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for threads in (1, 4, 2):  # the pool may be resized meanwhile
        _kernels.set_threads(threads)
    for caller in callers:
        caller.join()
    assert not wrong


EXIT = """
import threading
import numpy as np
from gangline.checkpoint.tensors import Tensor
from gangline.engine.backends.cpu import Cpu
ops = Cpu(4)
w = ops.weight(Tensor("w", "f32", (512, 512), np.ones((512, 512), np.float32)))
x = np.ones((32, 512), np.float32)
started = threading.Event()
def work():
    while True:
        ops.linear(x, w)
        started.set()
threading.Thread(target=work, daemon=True).start()
started.wait()
"""


def test_a_process_ends_while_a_daemon_thread_computes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forced_path_that_cannot_run_is_a_clear_error() -> None:
    code = "from gangline.engine.backends import open_backend; open_backend('cpu', 1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "GANGLINE_CPU": "altivec"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "GANGLINE_CPU: kernel path `altivec` is not in this build" in done.stderr


@pytest.mark.parametrize("path", _kernels.paths())
def test_a_path_can_be_forced(path: str) -> None:
    code = "from gangline import _kernels; print(_kernels.path())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "GANGLINE_CPU": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == path


def test_read_bandwidth_is_a_plausible_speed() -> None:
    """Between 10 MB/s and 10 TB/s: the unit is bytes per second."""
    for threads in (1, 2):
        assert 1e7 < _kernels.read_bandwidth(1 << 22, threads, 0.02) < 1e13
