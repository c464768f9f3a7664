"""An experiment says what is run: grids, what is left out of them, and live runs."""

import pytest

from specmd.errors import SpecmdError
from specmd.runs.resolve import Exclusion
from specmd.sweep.experiment import Experiment, read_experiment
from specmd.sweep.sweep import Tally, plan, sweep
from specmd.trace import save, synthetic


@pytest.fixture
def trace(tmp_path):
    made = synthetic(
        num_layers=2, num_experts=5, top_k=2, num_requests=2, decode_length=6, expert_bytes=1000
    )
    return save(made, tmp_path / "t.npz")


def write(tmp_path, text):
    path = tmp_path / "e.toml"
    path.write_text(text)
    return read_experiment(path)


def runs(experiment):
    jobs = plan(experiment.traces, experiment.grid, exclude=experiment.exclude)
    return [(job.config.evict, job.config.capacity, job.config.profile) for job in jobs]


GRIDS = """
traces = ["t.npz"]
[[grid]]
evict = ["lru", "lfu", "lfu:ties=key"]
capacity = [4, "6"]
profile = "t4"
[[grid]]
evict = "fifo"
capacity = 4
"""


def test_several_grids_are_one_sweep(trace, tmp_path):
    found = write(tmp_path, GRIDS)
    assert runs(found) == [
        *((evict, "4", "t4") for evict in ("lru", "lfu", "lfu:ties=key")),
        *((evict, "6", "t4") for evict in ("lru", "lfu", "lfu:ties=key")),
        ("fifo", "4", None),
    ]
    out = tmp_path / "out"
    assert sweep(found.traces, found.grid, out, bounds=False, workers=1) == Tally(done=7)


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ('[[exclude]]\nevict = "lfu"', 5),
        ('[[exclude]]\nevict = "lfu*"', 3),
        ('[[exclude]]\nevict = "lfu*"\ncapacity = 6', 5),
        ('[[exclude]]\nevict = ["lru", "fifo"]\ncapacity = ["4"]', 5),
        ('[[exclude]]\nprofile = "*4"', 1),
        ('[[exclude]]\nevict = "lru"\n[[exclude]]\nevict = "fifo"', 4),
        ('[exclude]\nmixed = true', 7),
        ('[[exclude]]\nevict = "*"', 0),
    ],
)  # fmt: skip
def test_what_matches_all_of_a_table_is_left_out(trace, tmp_path, rules, left):
    assert len(runs(write(tmp_path, GRIDS + rules))) == left


def test_a_policy_is_excluded_however_it_is_spelled(trace, tmp_path):
    text = '[[exclude]]\nevict = "lfu:resident=false,ties=key"'
    assert ("lfu:ties=key", "4", "t4") not in runs(write(tmp_path, GRIDS + text))
    with pytest.raises(SpecmdError, match="did you mean"):
        runs(write(tmp_path, GRIDS + '[[exclude]]\nevict = "lruu"'))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[[exclude]]\nevictt = "lru"',
            "exclude.0.evictt: unknown key 'evictt': did you mean evict",
        ),
        ('[grid]\nevct = ["lru"]', "grid.0.evct: unknown key 'evct': did you mean evict"),
        ('[live]\nthrotle = "1GB/s"', "did you mean throttle"),
        ('ot = "x"', "ot: unknown key 'ot': did you mean out?"),
        ("[[exclude]]\nevict = []", "the list is empty"),
        ("grid = []", "grid"),
        ("[live]\nrepetitions = 0", "live.repetitions"),
        ('[live]\nresources = "GPU"', "live.resources"),
        ("[live]\nthrottle = []", "live.throttle"),
        ("[[exclude]]\nevict = { a = 1 }", "exclude.0.evict"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    with pytest.raises(SpecmdError, match=r"e\.toml: invalid experiment") as error:
        write(tmp_path, text)
    assert said in str(error.value)


def test_paths_are_relative_to_the_file_and_names_are_names(tmp_path):
    (tmp_path / "model").mkdir()
    found = write(tmp_path, 'models = ["model", "tiny"]\nfollow = ["t.npz"]')
    assert found.models == (str(tmp_path / "model"), "tiny")
    assert found.follow == (tmp_path / "t.npz",)
    assert found.live.prompts == "builtin"


def test_the_schema_knows_every_option():
    schema = Experiment.model_json_schema()
    assert {"evict", "capacity", "profile"} <= set(schema["$defs"]["Grid"]["properties"])
    assert set(schema["$defs"]["Grid"]["properties"]) == set(Exclusion.model_fields)
    assert "repetitions" in schema["$defs"]["Live"]["properties"]
