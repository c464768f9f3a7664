"""Shipped model shapes: exact expert sizes, published totals, and lookup by model name."""

from importlib.resources import files
from pathlib import Path

import pytest

from specmd.errors import SpecmdError
from specmd.hardware.shape import list_shapes, load_shape, read_shape, shape_for_model

REQUIRED = {
    "olmoe-1b-7b", "mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v2-lite", "gpt-oss-20b",
    "switch-base-32",
}  # fmt: skip


def text_of(name: str) -> str:
    return files("specmd.models.shapes").joinpath(f"{name}.toml").read_text()


def test_the_promised_models_are_shipped():
    assert set(list_shapes()) >= REQUIRED


@pytest.mark.parametrize("name", list_shapes())
def test_a_shipped_shape_is_valid_and_sourced(name: str):
    shape = load_shape(name)
    assert shape.name == name
    assert all(len(source) > 10 for source in shape.sources)
    assert any(
        mark in source for source in shape.sources for mark in ("http", "specmd/models/tiny")
    )
    assert shape.expert_parameters * shape.experts * shape.moe_layers < shape.total_parameters
    assert shape.active_parameters < shape.total_parameters


@pytest.mark.parametrize(
    ("name", "expert_bytes"),
    [
        ("olmoe-1b-7b", 12_582_912),  # 3 * 2048 * 1024 * 2
        ("mixtral-8x7b", 352_321_536),  # 3 * 4096 * 14336 * 2
        ("qwen3-30b-a3b", 9_437_184),  # 3 * 2048 * 768 * 2
        ("deepseek-v2-lite", 17_301_504),  # 3 * 2048 * 1408 * 2
        ("switch-base-32", 9_437_184),  # 2 * 768 * 3072 * 2, served in bf16
        ("gpt-oss-20b", 13_219_200 + 17_280),  # 3 * 2880 * 2880 * 4.25 / 8, biases in bf16
    ],
)
def test_expert_bytes_are_exact(name: str, expert_bytes: int):
    assert load_shape(name).expert_bytes == expert_bytes


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("olmoe-1b-7b", 6.9e9, 1.3e9),
        ("mixtral-8x7b", 46.7e9, 12.9e9),
        ("qwen3-30b-a3b", 30.5e9, 3.3e9),
        ("deepseek-v2-lite", 15.7e9, None),
        ("gpt-oss-20b", 20.9e9, None),
        ("gpt-oss-120b", 116.8e9, None),
        ("kimi-linear-48b-a3b", 49.1e9, None),
        ("qwen3.6-35b-a3b", 35e9, None),
        ("qwen3-235b-a22b", 235e9, 22e9),
        ("deepseek-v4-flash", 284e9, None),
    ],
)
def test_parameters_are_near_the_published(name: str, total: float, active: float | None):
    shape = load_shape(name)
    assert shape.total_parameters == pytest.approx(total, rel=0.02)
    assert shape.total_parameters == pytest.approx(shape.published_parameters, rel=0.02)
    if active is not None:
        assert shape.active_parameters == pytest.approx(active, rel=0.02)


def test_active_parameters_where_embeddings_are_not_counted():
    """The gpt-oss card's 3.61B and DeepSeek's 2.4B leave the input embedding out."""
    oss, lite = load_shape("gpt-oss-20b"), load_shape("deepseek-v2-lite")
    assert oss.active_parameters - oss.embedding_parameters == pytest.approx(3.61e9, rel=0.02)
    assert lite.active_parameters - lite.embedding_parameters == pytest.approx(2.4e9, rel=0.03)


def test_totals_equal_the_models_built_by_transformers():
    """The counts of transformers' meta-device models, less the final norm, which is left out."""
    exact = {
        "olmoe-1b-7b": 6_919_161_856 - 2048,
        "mixtral-8x7b": 46_702_792_704 - 4096,
        "qwen3-30b-a3b": 30_532_122_624 - 2048,
        "deepseek-v2-lite": 15_706_484_224 - 2048,
        "gpt-oss-20b": 20_914_757_184 - 2880,
        # two final norms, two tables of 32 relative positions by 12 heads, and tied embeddings
        "switch-base-32": 1_978_514_688 - 2 * 768 - 2 * 32 * 12,
    }
    assert {name: round(load_shape(name).total_parameters) for name in exact} == exact


@pytest.mark.parametrize(
    "model",
    ["allenai/OLMoE-1B-7B-0924", "olmoe-1b-7b-0924", "OLMoE-1B-7B-0924-Instruct", "olmoe_1b_7b"],
)
def test_a_model_is_found_by_alias(model: str):
    shape = shape_for_model(model)
    assert shape is not None
    assert shape.name == "olmoe-1b-7b"
    assert load_shape(model) == shape


@pytest.mark.parametrize("model", [None, "", "meta-llama/Llama-3-8B", "mixtral-8x22b"])
def test_an_unknown_model_has_no_shape(model: str | None):
    assert shape_for_model(model) is None


def test_every_alias_leads_to_the_shape_that_lists_it():
    for name in list_shapes():
        shape = load_shape(name)
        assert shape.aliases
        assert {shape_for_model(alias) for alias in (name, *shape.aliases)} == {shape}


def test_an_unknown_name_suggests_the_closest():
    with pytest.raises(SpecmdError, match="did you mean mixtral-8x7b"):
        load_shape("mixtral-8x8b")


def test_layers_without_experts_are_charged_to_the_others():
    shape = load_shape("deepseek-v2-lite")
    assert shape.dense_layers == 1
    attention = shape.layers * (shape.attention_parameters + shape.norm_parameters)
    moe = shape.moe_layers * (shape.router_parameters + shape.shared_parameters)
    assert shape.shared_parameters == 3 * 2048 * 2816
    assert shape.moe_layers * shape.dense_parameters == pytest.approx(
        attention + moe + 3 * 2048 * 10944
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("expert_bytes = 12_582_912", "expert_bytes = 12_582_000", "the sizes give 12582912"),
        ("top_k = 8", "top_k = 65", "top_k is larger than experts"),
        ("moe_layers = 16", "moe_layers = 17", "moe_layers is larger than layers"),
        ("moe_layers = 16", "moe_layers = 15", "need dense_intermediate"),
        ("top_k = 8", "top_k = 8\nshared_experts = 1", "go together"),
        ("hidden = 2048", "hidden = 0", "hidden: Input should be greater than 0"),
        ("schema = 1", "schema = 9", "schema 9 is newer than 1; update specmd"),
        ("schema = 1", "schema = [", "not valid TOML"),
    ],
)
def test_a_broken_shape_is_an_error_that_names_the_file(
    tmp_path: Path, old: str, new: str, says: str
):
    text = text_of("olmoe-1b-7b")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SpecmdError) as caught:
        read_shape(path)
    assert "mine.toml" in str(caught.value)
    assert says in str(caught.value)


def test_a_shape_may_be_a_file(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(text_of("olmoe-1b-7b"))
    assert load_shape(path) == load_shape(str(path)) == load_shape("olmoe-1b-7b")
