"""What a simulated run would hold on its device, beside what there is."""

import pytest

import specmd
from specmd.hardware.memory import device_shortage
from specmd.hardware.profile import load_profile
from specmd.hardware.shape import load_shape
from specmd.trace import synthetic

GB = 10**9


def shortage(profile="rtx4090", shape="mixtral-8x7b", slots=10, staging=2, context=4096):
    known = load_shape(shape)
    return device_shortage(
        load_profile(profile), known, known.expert_bytes, slots, staging, context
    )


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
    run = specmd.simulate(trace, capacity=8, profile="rtx4090", bounds=False, interpreted=True)
    assert not any("does not fit" in text for text in run.warnings)
