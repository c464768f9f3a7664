"""What a run holds on its device, beside what there is; capacities that say what is held."""

import dataclasses

import pytest

import specmd
from specmd.errors import SpecmdError
from specmd.hardware.memory import HEADROOM, beside_slots
from specmd.hardware.profile import load_profile
from specmd.hardware.shape import load_shape
from specmd.runs.memory import device_shortage
from specmd.runs.resolve import grid
from specmd.runs.run import Memory
from specmd.trace import synthetic

GB = 10**9
OLMOE = load_shape("olmoe-1b-7b")


def shortage(profile="rtx4090", shape="mixtral-8x7b", slots=10, staging=2, context=4096):
    known = load_shape(shape)
    beside = beside_slots(known, known.expert_bytes, staging, context)
    needs = Memory(
        slots_bytes=slots * known.expert_bytes,
        staging_bytes=beside.staging,
        weights_bytes=beside.weights,
        kv_bytes=beside.kv,
        context_tokens=context,
        device_bytes=None,
    )
    return device_shortage(load_profile(profile), slots, needs)


def test_ninety_gigabytes_do_not_fit_on_twenty_four():
    text = shortage(slots=256)
    assert text.startswith("does not fit: ")
    assert "rtx4090" in text


def test_the_slots_it_names_are_the_most_that_fit():
    text = shortage(slots=256)
    fits = int(text.split("at most ")[1].split()[0].replace(",", ""))
    assert shortage(slots=fits) is None
    assert shortage(slots=fits + 1) is not None


@pytest.mark.parametrize(("option", "value"), [("staging", 60), ("context", 10**6), ("slots", 80)])
def test_everything_that_is_held_counts(option, value):
    assert shortage() is None
    assert shortage(**{option: value}) is not None


def test_not_even_one():
    assert "not even one slot fits" in shortage(context=10**7)


def test_a_run_says_it():
    trace = synthetic(num_layers=4, num_experts=8, top_k=2, expert_bytes=2 * GB)
    run = specmd.simulate(trace, capacity=20, profile="rtx4090", bounds=False, interpreted=True)
    assert any("does not fit: 44.0 GB" in text for text in run.warnings)
    assert run.memory.total_bytes == 44 * GB
    assert run.memory.weights_bytes is None
    run = specmd.simulate(trace, capacity=8, profile="rtx4090", bounds=False, interpreted=True)
    assert not any("does not fit" in text for text in run.warnings)


@pytest.fixture
def trace():
    return synthetic(
        num_layers=16, num_experts=64, top_k=8, prompt_length=20, decode_length=11,
        num_requests=2, batch=2, model="olmoe-1b-7b", seed=1,
    )  # fmt: skip


def test_what_the_device_holds_by_hand(trace):
    run = specmd.simulate(trace, capacity=100, profile="rtx4090", bounds=False, interpreted=True)
    needs = run.memory
    assert needs.slots_bytes == 100 * 12_582_912
    assert needs.staging_bytes == 2 * 12_582_912
    # Two requests of 31 tokens are held at the end: 2 x 16 heads x 128 x 2 bytes, 16 layers.
    assert needs.context_tokens == 62
    assert needs.kv_bytes == 62 * 2 * 16 * 128 * 2 * 16
    dense = OLMOE.total_parameters - 16 * 64 * 3 * 2048 * 1024
    assert needs.weights_bytes == dense * 2
    assert needs.device_bytes == 24 * 2**30
    assert needs.total_bytes == (
        needs.slots_bytes + needs.staging_bytes + needs.weights_bytes + needs.kv_bytes
    )


def test_free_is_what_the_device_has_left_and_one_more_would_not_fit(trace):
    (config,) = grid(trace, capacity="free", profile="rtx3060", context=50_000)
    device = load_profile("rtx3060").memory_bytes.value
    beside = beside_slots(OLMOE, OLMOE.expert_bytes, 2, 50_000).total
    size = OLMOE.expert_bytes
    assert config.capacity_slots * size <= device * (1 - HEADROOM) - beside
    assert (config.capacity_slots + 1) * size > int(device * (1 - HEADROOM)) - beside
    run = specmd.simulate(
        trace, capacity="free", profile="rtx3060", context=50_000, bounds=False, interpreted=True
    )
    assert run.config.capacity == "free"
    assert not any("does not fit" in text for text in run.warnings)


def test_where_all_fits_all_experts_have_slots(trace):
    (config,) = grid(trace, capacity="free", profile="h100_sxm")
    assert config.capacity_slots == 1024


def test_a_total_leaves_its_rest_for_slots(trace):
    (config,) = grid(trace, capacity="4GB total")
    beside = beside_slots(OLMOE, OLMOE.expert_bytes, 2, 62).total
    assert config.capacity_slots == (4 * GB - beside) // OLMOE.expert_bytes
    (longer,) = grid(trace, capacity="4GB total", context=10_000)
    assert longer.capacity_slots < config.capacity_slots
    header = trace.header.model_copy(
        update={"expert_bytes": 10**7, "expert_bytes_by_layer": (8_000_000, 12_000_000) * 8}
    )
    mixed = dataclasses.replace(trace, header=header)
    (config,) = grid(mixed, capacity="4GB total")
    run = specmd.simulate(mixed, capacity="4GB total", bounds=False, interpreted=True)
    assert run.regime.slots_bytes + run.memory.weights_bytes + run.memory.kv_bytes <= 4 * GB
    assert run.memory.staging_bytes == 2 * 12_000_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": "free"}, "name a --profile"),
        ({"capacity": "0.5GB total"}, "less than one expert"),
        ({"capacity": "many total"}, "not understood"),
        ({"capacity": "free", "profile": "rtx4090", "context": 10**9}, "less than one expert"),
    ],
)
def test_what_leaves_nothing_or_means_nothing_is_refused(trace, options, message):
    with pytest.raises(SpecmdError, match=message):
        grid(trace, **options)


def test_more_requests_in_flight_hold_more_and_leave_less():
    decoding = synthetic(
        num_layers=16, num_experts=64, top_k=8, decode_length=60, num_requests=4,
        model="olmoe-1b-7b",
    )  # fmt: skip
    runs = [
        specmd.simulate(decoding, capacity="4GB total", batch=batch, bounds=False, interpreted=True)
        for batch in (1, 4)
    ]
    assert [run.memory.context_tokens for run in runs] == [60, 240]
    assert runs[1].config.capacity_slots < runs[0].config.capacity_slots
    assert all(run.memory.total_bytes <= 4 * GB for run in runs)


def test_an_unknown_model_has_no_total():
    unknown = synthetic(expert_bytes=100)
    with pytest.raises(SpecmdError, match="--shape"):
        grid(unknown, capacity="4GB total")
    with pytest.raises(SpecmdError, match="--context"):
        grid(
            synthetic(model="olmoe-1b-7b", num_layers=16, num_experts=64).header,
            capacity="4GB total",
        )
