"""Configurations are canonical, a grid is their product, and an identity is what decides a run."""

import re
import textwrap
from functools import partial

import pytest

import specmd
from specmd.errors import SpecmdError
from specmd.policy import registry
from specmd.runs.identity import run_id
from specmd.runs.resolve import Grid, grid, make_grid
from specmd.trace import synthetic

simulate = partial(specmd.simulate, bounds=False, interpreted=True)

PLUGIN = textwrap.dedent(
    """
    '''mine: made up for a test.'''
    from specmd.policy.registry import policy

    @policy("mine", source="a test")
    class Mine:
        @classmethod
        def create(cls, world):
            return cls()

        def rank(self, key, event):
            return key
    """
)


def small(**more):
    sizes = {"num_layers": 3, "num_experts": 6, "top_k": 2, "num_requests": 3, "decode_length": 8}
    return synthetic(**(sizes | more))


# Identity.


def identity(trace, **options):
    (config,) = grid(trace, **({"capacity": 6} | options))
    return run_id(trace, config, bounds=True)


def test_two_spellings_of_a_run_are_one():
    trace = small()  # 18 keys
    assert identity(trace, capacity="2/layer") == identity(trace, capacity=6)
    assert identity(trace, evict="least_stale") == identity(trace, evict="least_stale:order=cycle")
    assert identity(trace, schedule="guard") == identity(trace)  # nothing to schedule
    assert len(grid(trace, capacity=["6", "2/layer", "34%", 6])) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"evict": "fifo"},
        {"capacity": 7},
        {"scope": "layer"},
        {"seed": 1},
        {"warmup": 1},
        {"tokens": 5},
        {"reset": "request"},
        {"sequential": True},
        {"admission": "bypass"},
        {"profile": "h200"},
        {"profile": "rtx4090"},
        {"shape": "olmoe-1b-7b"},
        {"prefetch": "prev_token"},
    ],
)
def test_another_input_is_another_run(change):
    trace = small(expert_bytes=1000)
    assert identity(trace, **change) != identity(trace)


def test_the_trace_the_bytes_the_bounds_and_the_training_count_too():
    trace = small(expert_bytes=1000)
    (config,) = grid(trace, capacity=6)
    ids = {
        run_id(trace, config, bounds=True),
        run_id(trace, config, bounds=False),
        run_id(trace, config, bounds=True, training=small(seed=3)),
        run_id(small(expert_bytes=1001), config, bounds=True),
        run_id(small(expert_bytes=1000, seed=1), config, bounds=True),
    }
    assert len(ids) == 5


def test_a_profile_counts_by_what_it_says(tmp_path):
    from specmd.hardware.profile import shipped

    shipped_file = shipped("specmd.hardware_profiles")["h200"]
    copy = tmp_path / "copied.toml"
    copy.write_text(shipped_file.read_text())
    trace = small(expert_bytes=1000)
    assert identity(trace, profile=str(copy)) == identity(trace, profile="h200")
    run = simulate(trace, capacity=6, profile=str(copy))
    assert run.config.profile == "h200"
    assert str(tmp_path) not in run.to_json()
    copy.write_text(re.sub(r"(?m)^calibrated = false", "calibrated = true", copy.read_text()))
    assert identity(trace, profile=str(copy)) != identity(trace, profile="h200")


def test_editing_a_plugin_makes_another_run_and_a_comment_does_not(tmp_path, monkeypatch):
    built_in, ids = dict(registry._registry()), []
    for edit in ("", "# another line\n", "another = 1\n"):
        fresh = dict(built_in)
        monkeypatch.setattr(registry, "_registry", lambda fresh=fresh: fresh)
        plugin = tmp_path / f"{len(ids)}.py"
        plugin.write_text(PLUGIN + edit)
        registry.add_plugin(plugin)
        ids.append(identity(small(), evict="mine"))
    assert ids[0] == ids[1] != ids[2]


# Grids.


def test_a_grid_is_a_product_in_a_stable_order():
    configs = grid(small(), evict=["lru", "fifo"], capacity=["4", "6"], scope=["global", "layer"])
    assert [(c.scope, c.capacity_slots, c.evict) for c in configs] == [
        (scope, slots, evict)
        for scope in ("global", "layer")
        for slots in (4, 6)
        for evict in ("lru", "fifo")
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"evikt": "lru"}, "evikt: not an option"),
        ({"evict": "lruu"}, "did you mean lru"),
        ({"evict": "least_stale:ordr=cycle"}, "parameter"),
        ({"evict": []}, "evict: the list is empty"),
        ({"capacity": "lots"}, "capacity 'lots'"),
        ({"capacity": 0}, "less than one slot"),
        ({"capacity": "1GB"}, "--expert-bytes"),
        ({"capacity": True}, "capacity"),
        ({"scope": "galaxy"}, "scope"),
        ({"warmup": -1}, "warmup"),
        ({"tokens": 0}, "tokens"),
        ({"profile": "h20"}, "hardware profile"),
        ({"shape": "olmo"}, "shape"),
        ({"sequential": True, "prefetch": "prev_token"}, "prefetch=prev_token"),
        ({"sequential": True, "profile": "h200"}, "profile=h200"),
    ],
)
def test_bad_options_are_errors_before_anything_runs(options, words):
    with pytest.raises(SpecmdError, match=re.escape(words)) as error:
        grid(small(), **({"capacity": 6} | options))
    assert "\n" not in str(error.value)


def test_a_grid_can_be_made_from_lists_and_single_values():
    assert make_grid({"evict": "lru", "capacity": 5}) == Grid(evict=["lru"], capacity=["5"])
