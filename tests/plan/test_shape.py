"""Sizes and work of models as their publishers state them."""

from __future__ import annotations

import pytest

from gangline.errors import UsageError
from gangline.plan import catalog
from gangline.plan.shape import (
    LayerCost,
    ModelCost,
    active_weights,
    bits_of,
    cost_of_config,
    with_layers,
)
from tests.plan.parameter_count import count_parameters


@pytest.mark.parametrize("model", catalog.models(), ids=lambda model: model.id)
def test_all_weights_are_counted(model: catalog.ModelType) -> None:
    """Against the count that was written apart; norms and small gates differ."""
    total, used = active_weights(model.config)
    count = count_parameters(model.config)
    assert total == pytest.approx(count.total, rel=0.01)
    assert used == pytest.approx(count.active_layers + count.embedding, rel=0.01)


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
    full = with_layers(files, config)
    assert full.layer_bytes == files.layer_bytes
    assert [layer.weight_bytes for layer in full.layers] == list(files.layer_bytes)
    assert full.layers[0].n_active == 8
    assert full.layers[0].cache_bytes(100) == 4096 * 100, "as the engine that reads them keeps it"
    assert bits_of(full) == pytest.approx(4.5, abs=0.1)
    other = ModelCost(published.layer_bytes[:-1], 1, 1, 4096, 2048, 8192)
    assert with_layers(other, config) == other, "another number of layers"
    assert with_layers(files, {"hidden_size": "large"}) == files


@pytest.mark.parametrize("bits", [0, -1, 64, float("nan")])
def test_bits_that_no_weight_has(bits: float) -> None:
    with pytest.raises(UsageError, match="bits per weight"):
        cost_of_config(catalog.model("qwen3-4b").config, bits)


def test_a_config_without_sizes_names_what_is_missing() -> None:
    with pytest.raises(UsageError, match="num_hidden_layers"):
        cost_of_config({"hidden_size": 8}, 4)
