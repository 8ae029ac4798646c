"""Sizes and work of models as their publishers state them."""

from __future__ import annotations

import pytest

from gangline.errors import UsageError
from gangline.plan import catalog
from gangline.plan.elements import Fields, elements_of
from gangline.plan.shape import (
    LayerCost,
    ModelCost,
    bits_of,
    cost_of_config,
    with_layers,
)
from tests.plan.parameter_count import count_parameters


@pytest.mark.parametrize("model", catalog.models(), ids=lambda model: model.id)
def test_all_weights_are_counted(model: catalog.ModelType) -> None:
    """Against the count that was written apart; norms and small gates differ."""
    fields, count = Fields(model.config), count_parameters(model.config)
    layers, table = elements_of(fields), fields.hidden * fields.vocab
    total = sum(layer.weights for layer in layers) + table * (1 if fields.tied else 2)
    used = sum(layer.shared + layer.n_active * layer.expert for layer in layers) + table
    assert total == pytest.approx(count.total, rel=0.001)
    assert used == pytest.approx(count.active_layers + count.embedding, rel=0.001)


@pytest.mark.parametrize("model", catalog.models(), ids=lambda model: model.id)
def test_every_model_of_the_catalogue_has_a_cost(model: catalog.ModelType) -> None:
    cost = cost_of_config(model.config, 4.5)
    assert len(cost.layers) == cost.n_layers == len(cost.layer_bytes)
    assert all(layer.weight_bytes > 0 for layer in cost.layers)
    assert cost.max_context >= 1024


def test_gpt_oss_keeps_its_experts_in_four_bits() -> None:
    """The published file of 120b is 59.02 GiB (ggml-org/llama.cpp benches/dgx-spark.md)."""
    cost = cost_of_config(catalog.model("gpt-oss-120b").config, 4.5)
    assert cost.weight_bytes / 2**30 == pytest.approx(59.02, rel=0.01)


def test_windows_keep_a_part_of_the_context() -> None:
    layers = cost_of_config(catalog.model("gpt-oss-20b").config, 4.25).layers
    windowed, full = layers[0], layers[1]
    assert windowed.cache_bytes(8192) == windowed.cache_bytes_per_token * 128
    assert full.cache_bytes(8192) == full.cache_bytes_per_token * 8192


def test_latent_attention_keeps_little() -> None:
    """576 numbers a token and layer: 512 latent, 64 with positions (arXiv:2405.04434)."""
    cost = cost_of_config(catalog.model("deepseek-v3").config, 8)
    assert cost.layers[0].cache_bytes_per_token == 2 * 576
    assert cost.layers[0].n_experts == 0
    assert cost.layers[3].n_experts == 256


def test_keys_that_are_values_before_they_rotate() -> None:
    """Gemma 4's global layers have a matrix less, and keep keys and values all the same."""
    config = catalog.model("gemma-4-31b").config
    shared = cost_of_config(config, 16).layers
    apart = cost_of_config({**config, "attention_k_eq_v": False}, 16).layers
    assert shared[0] == apart[0], "a window: its values have a matrix of their own"
    assert apart[5].weight_bytes - shared[5].weight_bytes == 2 * 5376 * 4 * 512
    assert shared[5].cache_bytes_per_token == apart[5].cache_bytes_per_token == 2 * 2 * 4 * 512


def test_lightning_attention_keeps_a_matrix_of_each_head() -> None:
    """MiniMax-M1: seven such layers, then one of attention (arXiv:2506.13585, section 2.1)."""
    layers = cost_of_config(catalog.model("minimax-m1").config, 16).layers
    lightning, attention = layers[6], layers[7]
    assert lightning.cache_bytes(10**6) == 4 * 64 * 128 * 128
    assert lightning.flops_per_pair == 0
    assert attention.cache_bytes(1000) == 1000 * 2 * 2 * 8 * 128
    # Queries, keys, values, gate and result, all heads wide, against a key head for eight.
    assert lightning.weight_bytes - attention.weight_bytes == 2 * 6144 * 128 * (5 * 64 - 2 * 72)
    assert [layer.state_bytes > 0 for layer in layers] == [(i + 1) % 8 != 0 for i in range(80)]


def test_more_rows_read_more_experts_up_to_all() -> None:
    layer = LayerCost(shared_bytes=10, expert_bytes=1, n_experts=128, n_active=4)
    read = [layer.experts_read(rows) for rows in (1, 2, 8, 32, 512, 10**6)]
    assert read[0] == pytest.approx(4)
    assert read == sorted(read)
    assert read[-1] == pytest.approx(128)
    assert layer.read_bytes(1) == pytest.approx(14)


def test_files_keep_their_sizes_and_get_the_work_of_their_config() -> None:
    model = catalog.model("qwen3-30b-a3b")
    config = model.config
    published = cost_of_config(config, 4.5)
    files = ModelCost(published.layer_bytes, 1, 1, 4096, 2048, 8192)
    caches = [(1024 * (i % 2), 7 * i) for i in range(files.n_layers)]
    full = with_layers(files, config, caches)
    assert full.layer_bytes == files.layer_bytes
    assert [layer.weight_bytes for layer in full.layers] == list(files.layer_bytes)
    assert full.layers[0].n_active == 8
    kept = [layer.cache_bytes(100) for layer in full.layers]
    assert kept == [100 * per_token + per_lane for per_token, per_lane in caches], "as they are"
    assert bits_of(full) == pytest.approx(4.5, abs=0.1)
    other = ModelCost(published.layer_bytes[:-1], 1, 1, 4096, 2048, 8192)
    assert with_layers(other, config, caches[:-1]) == other, "another number of layers"
    assert with_layers(files, {"hidden_size": "large"}, caches) == files


@pytest.mark.parametrize("bits", [0, -1, 64, float("nan")])
def test_bits_that_no_weight_has(bits: float) -> None:
    with pytest.raises(UsageError, match="bits per weight"):
        cost_of_config(catalog.model("qwen3-4b").config, bits)


def test_a_config_without_sizes_names_what_is_missing() -> None:
    with pytest.raises(UsageError, match="num_hidden_layers"):
        cost_of_config({"hidden_size": 8}, 4)
