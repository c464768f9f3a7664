"""An option is declared once, and everything that takes it has it from there."""

import inspect
import json
import re

import pytest

import specmd
from specmd.runs.declared import OPTIONS
from specmd.runs.options import RunConfig
from specmd.runs.resolve import Grid
from specmd.trace import synthetic


def spelled(function):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name in OPTIONS
    }


def test_all_that_take_options_take_the_declared_ones():
    defaults = {option.name: option.default for option in OPTIONS.values()}
    assert defaults == {
        name: field.default
        for name, field in RunConfig.model_fields.items()
        if name not in ("capacity_slots", "host_slots")
    }
    assert {name: (value,) for name, value in defaults.items()} == Grid().model_dump()
    assert spelled(specmd.simulate) == defaults
    live = {name: value for name, value in defaults.items() if OPTIONS[name].live}
    assert spelled(specmd.offload) == live
    assert live


def test_the_same_empty_call_decides_alike():
    simulated, live = spelled(specmd.simulate), spelled(specmd.offload)
    assert {name: simulated[name] for name in live} == live
    assert (live["evict"], live["prefetch"], live["schedule"]) == ("lru", "none", "fifo")


@pytest.mark.parametrize("function", [specmd.simulate, specmd.offload])
def test_the_documentation_says_every_option(function):
    arguments = function.__doc__.partition("Raises:")[0]
    said = re.findall(r"^        (\w+): \S", arguments, re.MULTILINE)
    taken = list(inspect.signature(function).parameters)
    assert said == taken


def test_an_unknown_argument_is_what_it_is_in_python():
    with pytest.raises(TypeError, match="evikt"):
        specmd.simulate(synthetic(), evikt="lru")


def test_results_are_written_with_every_option():
    config = RunConfig(capacity="5%", capacity_slots=3)
    assert list(json.loads(config.model_dump_json())) == [*OPTIONS, "capacity_slots", "host_slots"]
