"""`gangline.load_model`: logits and tokens in the calling process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gangline
from gangline.errors import CheckpointError, ContextTooLong, NotFound, UsageError
from gangline.paths import demo_model
from tests.engine.fixtures import read_case
from tests.engine.steps import Chain
from tests.make_checkpoint import make_checkpoint

IDS = [5, 17, 3, 88, 41, 2, 9]


def half(folder: Path) -> Chain:
    """With a cache of half precision, as models are served."""
    return Chain(folder, backend="reference", cache_dtype="f16")


def test_logits_are_the_decoders(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    model = gangline.load_model(folder, backend="reference", context=64)
    found = model.logits(np.array(IDS))
    assert found.dtype == np.float32 and found.shape == (7, 97) == (7, model.shape.vocab)
    np.testing.assert_allclose(found, half(folder).run(IDS), atol=1e-5)
    again = model.logits(IDS[:3])  # nothing is left of the sequence before
    np.testing.assert_allclose(again, found[:3], atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3_next"])
def test_greedy_tokens_are_the_likeliest(tmp_path: Path, name: str) -> None:
    """Also where the cache of another sequence has the same beginning, or goes further."""
    ids = read_case(name, tmp_path).prompts[1].tolist()
    model = gangline.load_model(tmp_path, backend="reference", context=96)
    answer = list(model.generate(ids, max_tokens=9, temperature=0, stop=()))
    assert len(answer) == 9
    rows = half(tmp_path).run(ids + answer)
    assert rows[len(ids) - 1 : -1].argmax(1).tolist() == answer
    for other in (ids[:4], ids + answer[:5], [1, *ids]):
        list(model.generate(other, max_tokens=3, temperature=0, stop=()))
        assert list(model.generate(ids, max_tokens=9, temperature=0, stop=())) == answer
    last = answer[-1]
    stopped = list(model.generate(ids, max_tokens=9, temperature=0, stop=[last]))
    assert stopped == answer[: answer.index(last)]


def test_a_seed_draws_the_same_tokens(tmp_path: Path) -> None:
    model = gangline.load_model(make_checkpoint(tmp_path), backend="reference", context=32)

    def draw(seed: int, **options: float) -> list[int]:
        return list(model.generate(IDS, max_tokens=8, seed=seed, stop=(), **options))

    assert draw(1) == draw(1) != draw(2)
    assert draw(1, top_p=0.01) == draw(2, temperature=0.0)
    assert len(list(model.generate(IDS, max_tokens=1000, stop=()))) == 32 - len(IDS)
    assert list(model.generate(IDS, max_tokens=0)) == []


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    model = gangline.load_model(make_checkpoint(tmp_path), backend="reference", context=8)
    with pytest.raises(UsageError, match="no token ids"):
        model.logits([])
    with pytest.raises(UsageError, match="token id 97, the vocabulary has 97"):
        model.generate([1, 97])
    with pytest.raises(ContextTooLong, match="9 tokens, the model was loaded for 8"):
        model.logits([1] * 9)
    for wrong in ({"temperature": -1.0}, {"top_p": 0.0}, {"max_tokens": -1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            model.generate([1], **wrong)
    with pytest.raises(NotFound, match="no model folder"):
        gangline.load_model(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"architectures": ["Mamba9ForCausalLM"]}')
    with pytest.raises(CheckpointError, match="`Mamba9ForCausalLM`"):
        gangline.load_model(tmp_path)


def test_the_default_back_end_runs_the_demo_model() -> None:
    pytest.importorskip("gangline._kernels", reason="the C++ extension is not built")
    model = gangline.load_model(demo_model())
    assert np.isfinite(model.logits([1, 2, 3])).all()


def test_importing_gangline_loads_nothing_else() -> None:
    code = (
        "import gangline, sys\n"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] == 'gangline'))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['gangline']"
