"""A calibration of the tiny model: a valid profile, whose file says the same."""

import pytest

from specmd.calibration import calibrating, kernels
from specmd.calibration import link as link_module
from specmd.calibration.calibrating import calibrate
from specmd.hardware.profile import read_profile
from specmd.hardware.shape import load_shape
from specmd.hardware.toml import profile_text
from specmd.measurement import LiveSettings, PromptWorkload
from specmd.models.generation import Generation
from specmd.models.moe import find_moe
from specmd.models.prompts import Prompt
from specmd.models.tiny import MODEL_NAME, load_tiny


@pytest.fixture(scope="module")
def found(request):
    """One quick calibration: less time for every measurement, and fewer of them."""
    patch = pytest.MonkeyPatch()
    patch.setattr(kernels, "_SPAN_S", 0.005)
    patch.setattr(link_module, "_BUDGET_S", 0.05)
    patch.setattr(calibrating, "TOKENS", (1, 64))
    patch.setattr(calibrating, "ROUNDS", 1)
    patch.setattr(calibrating, "MOST_ROUNDS", 2)
    patch.setattr(calibrating, "_PAUSE_S", 0.0)
    model, tokenizer = load_tiny()
    weights = [p.clone() for p in find_moe(model).layers[3].experts.parameters()]
    generation = Generation((Prompt("def add(a, b):"),), max_new_tokens=4)
    workload = PromptWorkload(model, tokenizer, generation, MODEL_NAME)
    said = []
    settings = LiveSettings(link="cpu", throttle=(1.0, 9.0))  # a throttle would never end
    calibration = calibrate(
        workload, load_shape(MODEL_NAME), settings, name="here", progress=lambda *s: said.append(s)
    )
    patch.undo()
    restored = find_moe(model).layers[3].experts.parameters()
    assert all(a.equal(b) for a, b in zip(weights, restored, strict=True))
    steps = [step for step, _, _ in said]
    assert steps == list(range(len(said)))
    assert {parts for _, parts, _ in said} == {2 + 2}
    assert 2 + 1 <= len(said) <= 2 + 2
    return calibration


def test_the_profile_is_calibrated_and_complete(found):
    profile = found.profile
    assert profile.calibrated
    assert profile.check is not None
    assert (profile.warnings() == []) == profile.check.accepted
    assert profile.stack is not None
    assert profile.host_link.wake_s is not None
    assert profile.host_link.type == "memory"
    assert all(f.kind in ("measured", "derived", "design") for f in profile.figures().values())
    assert set(found.expert_s) == {1, 64}


def test_its_file_says_the_same(found, tmp_path):
    path = tmp_path / "here.toml"
    path.write_text(profile_text(found.profile))
    read = read_profile(path)
    assert read.check is not None
    assert read.check.accepted == found.profile.check.accepted
    assert read.check.errors == pytest.approx(found.profile.check.errors, rel=1e-5)
    for name, figure in read.figures().items():
        mine = found.profile.figures()[name]
        assert figure.value == pytest.approx(mine.value, rel=1e-5)
        assert (figure.unit, figure.kind, figure.source) == (mine.unit, mine.kind, mine.source)
    assert (read.name, read.title, read.notes) == ("here", found.profile.title, found.profile.notes)


def test_the_check_is_of_plays_that_nothing_was_fitted_to(found):
    configurations = ("all_resident", "none_resident_paced", "half_resident_paced")
    metrics = [f"{way}_{name}" for way in configurations for name in ("ttft", "tpot")]
    assert list(found.profile.check.errors) == metrics
    assert set(configurations) < set(found.rounds[0])
    assert {"resident", "waited", "partly"} < set(found.rounds[0]) - set(configurations)
