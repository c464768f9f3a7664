"""The roofline's laws, hand-computed values, and the same numbers when compiled."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmd.errors import SpecmdError
from specmd.hardware.engines import list_engines, load_engine
from specmd.hardware.profile import Attainable, Figure, Stack, list_profiles, load_profile
from specmd.hardware.shape import list_shapes, load_shape
from specmd.simulation import costs
from specmd.simulation.costs import (
    coefficients,
    cost_warnings,
    expert_s,
    in_prefill,
    layer_s,
    step_s,
    transfer_s,
)

H100 = load_profile("h100_sxm")
OLMOE = load_shape("olmoe-1b-7b")
SIZE = OLMOE.expert_bytes
PAIRS = [(profile, shape) for profile in list_profiles() for shape in list_shapes()]
TOKENS = st.integers(1, 20_000)


def attaining(**shares):
    """Eager engine, which attains the peaks but for these shares."""
    names = ("memory", "flops", "prefill_memory", "prefill_flops")
    figures = {
        f"{name}_share": Figure(
            value=shares.get(name, 1.0), unit="share", kind="design", source="made up for a test"
        )
        for name in names
    }
    return load_engine("eager").model_copy(update=figures)


PEAK = attaining()
EXPERT_KERNELS, LAYER_KERNELS, STEP_KERNELS = 10, 20, 6


def olmoe_on_h100(engine=PEAK):
    return coefficients(H100, OLMOE, OLMOE.expert_bytes, engine)


def test_one_token_through_an_expert_by_hand():
    read_s = 12_582_912 / 3.35e12
    assert expert_s(olmoe_on_h100(), 1, SIZE) == pytest.approx(read_s + 10 * 5e-6)


def test_many_tokens_through_an_expert_by_hand():
    flops = 2 * 3 * 2048 * 1024 * 4096
    assert expert_s(olmoe_on_h100(), 4096, SIZE) == pytest.approx(flops / 989.5e12 + 10 * 5e-6)


def test_a_decode_layer_by_hand():
    weights = 4 * 2048**2 + 4 * 2048 + 64 * 2048
    kv = 1000 * 2 * 16 * 128 * 2
    expected = (weights * 2 + kv) / 3.35e12 + LAYER_KERNELS * 5e-6
    assert layer_s(olmoe_on_h100(), 1, 1000, 1000) == pytest.approx(expected)


def test_a_prefill_layer_by_hand():
    n = 8192
    weights = 4 * 2048**2 + 4 * 2048 + 64 * 2048
    flops = 2 * weights * n + n * n * 2 * 16 * 256
    assert layer_s(olmoe_on_h100(), n, n, n) == pytest.approx(
        flops / 989.5e12 + LAYER_KERNELS * 5e-6
    )


def test_head_and_transfer_by_hand():
    head = 50304 * 2048 * 2 / 3.35e12 + STEP_KERNELS * 5e-6
    assert step_s(olmoe_on_h100(), 1) == pytest.approx(head)
    assert transfer_s(olmoe_on_h100(), 12_582_912) == pytest.approx(6e-6 + 12_582_912 / 56.3e9)


def test_kv_of_a_batch_is_read_once_per_request():
    c = olmoe_on_h100()
    one, batch = layer_s(c, 1, 4000, 4000), layer_s(c, 8, 4000, 8 * 4000)
    assert batch - one == pytest.approx(7 * 4000 * c.kv_read_s)


@pytest.mark.parametrize(("profile", "shape"), PAIRS)
def test_one_token_is_bound_by_memory_and_many_by_arithmetic(profile: str, shape: str):
    model = load_shape(shape)
    c = coefficients(load_profile(profile), model, model.expert_bytes, PEAK)
    assert expert_s(c, 1, model.expert_bytes) == model.expert_bytes * c.read_s_per_byte + c.launch_s
    assert layer_s(c, 1, 1, 1) == c.layer_read_s + c.kv_read_s + c.layer_launch_s
    assert step_s(c, 1) == c.head_read_s + c.step_launch_s
    assert expert_s(c, 100_000, model.expert_bytes) == 100_000 * c.expert_flop_s + c.launch_s


@pytest.mark.parametrize(("profile", "shape"), PAIRS)
def test_the_knee_is_where_both_bounds_meet(profile: str, shape: str):
    device, model = load_profile(profile), load_shape(shape)
    c = coefficients(device, model, model.expert_bytes, PEAK)
    knee = model.expert_bytes * c.read_s_per_byte / c.expert_flop_s
    ratio = device.flops_per_s.value / device.memory_bytes_per_s.value
    bits = 8 * model.expert_bytes / model.expert_matrix_parameters
    assert knee == pytest.approx(ratio * bits / 16)
    assert expert_s(c, 0.99 * knee, model.expert_bytes) == expert_s(c, 1, model.expert_bytes)
    assert expert_s(c, 1.01 * knee, model.expert_bytes) > expert_s(c, 1, model.expert_bytes)


@given(TOKENS, TOKENS, st.integers(0, 100_000))
def test_costs_never_fall_with_more_tokens(a: int, b: int, context: int):
    few, many = min(a, b), max(a, b)
    c = olmoe_on_h100()
    assert expert_s(c, few, SIZE) <= expert_s(c, many, SIZE)
    assert layer_s(c, few, context, context) <= layer_s(c, many, context, context)
    assert layer_s(c, few, context, context) <= layer_s(c, few, context + 1, context + 1)
    assert step_s(c, few) <= step_s(c, many)
    assert transfer_s(c, few) < transfer_s(c, few + 1)


@given(TOKENS, TOKENS)
def test_two_kernels_never_beat_one_for_all_tokens(a: int, b: int):
    c = olmoe_on_h100()
    assert expert_s(c, a + b, SIZE) <= expert_s(c, a, SIZE) + expert_s(c, b, SIZE)


def test_no_tokens_cost_nothing_but_an_empty_transfer_has_its_latency():
    c = olmoe_on_h100()
    assert (expert_s(c, 0, SIZE), layer_s(c, 0, 10, 10), step_s(c, 0)) == (0.0, 0.0, 0.0)
    assert transfer_s(c, 0) == c.latency_s > 0


def test_launches_are_counted_by_kernel():
    c = olmoe_on_h100()
    launch_s = H100.launch_s.value
    assert c.launch_s == EXPERT_KERNELS * launch_s
    assert c.layer_launch_s == LAYER_KERNELS * launch_s
    assert c.step_launch_s == STEP_KERNELS * launch_s


@pytest.mark.parametrize("name", list_engines())
def test_a_kind_of_engine_is_sourced_and_its_launches_are_counted(name):
    engine = load_engine(name)
    assert engine.name == name
    for field in type(engine).model_fields:
        figure = getattr(engine, field)
        if isinstance(figure, Figure):
            assert figure.url or figure.kind in ("assumption", "design"), field
    c = olmoe_on_h100(engine)
    launch_s = (engine.launch_s or H100.launch_s).value
    assert c.layer_launch_s == engine.layer_launches.value * launch_s
    assert (c.decide_s, c.fetch_s) == (engine.decide_s.value, engine.fetch_s.value)


def test_engines_differ_as_their_names_say():
    launches = {
        name: 16 * (8 * c.launch_s + c.layer_launch_s) + c.step_launch_s
        for name in list_engines()
        for c in [olmoe_on_h100(load_engine(name))]
    }
    assert launches["graph"] < launches["grouped"] < launches["eager"]
    assert load_engine(None).name == "grouped"
    with pytest.raises(SpecmdError, match="grouped"):
        load_engine("groped")


def test_a_share_of_the_peak_takes_longer_and_a_prefill_has_its_own():
    full = olmoe_on_h100()
    part = olmoe_on_h100(attaining(memory=0.5, flops=0.25, prefill_memory=0.8, prefill_flops=0.5))
    assert part.read_s_per_byte == 2 * full.read_s_per_byte
    assert part.expert_flop_s == 4 * full.expert_flop_s
    assert layer_s(part, 1, 0, 0) - part.layer_launch_s == pytest.approx(2 * full.layer_read_s)
    wide = in_prefill(part)
    assert wide.expert_flop_s == pytest.approx(2 * full.expert_flop_s)
    assert wide.read_s_per_byte == pytest.approx(full.read_s_per_byte / 0.8)
    assert wide.layer_launch_s == part.layer_launch_s
    assert in_prefill(full) == full


def test_a_calibrated_profile_has_its_own_software_and_rates():
    stack = dict.fromkeys(("expert_s", "layer_s", "step_s"), H100.launch_s)
    measured = H100.model_copy(update={"stack": Stack(**stack), "calibrated": True})
    found = {
        name: coefficients(measured, OLMOE, SIZE, load_engine(name)) for name in list_engines()
    }
    assert len(set(found.values())) == 1
    c = found["graph"]
    assert c.launch_s == c.layer_launch_s == c.step_launch_s == H100.launch_s.value
    assert c.decide_s == c.fetch_s == 0.0
    assert 1 / c.read_s_per_byte == pytest.approx(H100.memory_bytes_per_s.value)
    share = Figure(value=0.5, unit="share", kind="design", source="made up for a test")
    half = measured.model_copy(update={"attainable": Attainable(memory_share=share)})
    assert coefficients(half, OLMOE, SIZE).read_s_per_byte == 2 * c.read_s_per_byte


@pytest.mark.parametrize("name", list_profiles())
def test_a_miss_costs_more_than_a_hit_everywhere(name: str):
    """The premise of an expert cache: the link is slower than computing one token."""
    found = coefficients(load_profile(name), OLMOE, OLMOE.expert_bytes)
    assert transfer_s(found, OLMOE.expert_bytes) > expert_s(found, 1, SIZE)


def test_a_quantized_expert_is_read_faster_and_computed_alike():
    full, quarter = olmoe_on_h100(), coefficients(H100, OLMOE, SIZE // 4, PEAK)
    assert quarter.read_s_per_byte == full.read_s_per_byte
    assert quarter.expert_flop_s == full.expert_flop_s
    assert expert_s(quarter, 1, SIZE // 4) < expert_s(full, 1, SIZE)
    assert transfer_s(quarter, OLMOE.expert_bytes // 4) < transfer_s(full, OLMOE.expert_bytes)


def test_an_unknown_model_is_taken_as_bf16_and_warned_about():
    known, unknown = olmoe_on_h100(), coefficients(H100, None, SIZE, PEAK)
    assert expert_s(unknown, 1, SIZE) == expert_s(known, 1, SIZE)
    assert expert_s(unknown, 5000, SIZE) == pytest.approx(expert_s(known, 5000, SIZE))
    assert layer_s(unknown, 100, 100, 100) == step_s(unknown, 100) == 0.0
    assert transfer_s(unknown, 1e6) == transfer_s(known, 1e6)
    warned, silent = cost_warnings(H100, None, 12_582_912), cost_warnings(H100, OLMOE, 12_582_912)
    assert len(warned) == len(silent) + 1
    assert "model shape unknown" in warned[-1]
    assert "12582912" in warned[-1]


@pytest.mark.parametrize("expert_bytes", [0, -1])
def test_an_expert_without_bytes_is_refused(expert_bytes: int):
    with pytest.raises(SpecmdError, match="give the size of one expert"):
        coefficients(H100, OLMOE, expert_bytes)


def test_every_coefficient_is_a_finite_float():
    c = olmoe_on_h100()
    assert all(type(value) is float and math.isfinite(value) for value in c)


def test_compiled_equals_interpreted():
    numba = pytest.importorskip("numba")
    c = olmoe_on_h100()
    for name, arguments in [
        ("expert_s", (3.0, 1e6)),
        ("layer_s", (700.0, 350.5, 700.0)),
        ("step_s", (1.0,)),
        ("transfer_s", (1e6,)),
    ]:
        plain = getattr(costs, name)
        assert numba.njit(plain)(c, *arguments) == plain(c, *arguments)
