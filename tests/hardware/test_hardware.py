"""Every shipped profile is valid and sourced; a broken one is an error that names the file."""

import math
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import ValidationError

from specmd.errors import SpecmdError
from specmd.hardware.profile import (
    Figure,
    HardwareProfile,
    list_profiles,
    load_profile,
    read_profile,
)

REQUIRED = {
    "t4", "rtx3060", "rtx3090", "rtx4090", "rtx5090", "l4", "a10", "a100_40gb", "a100_80gb",
    "h100_pcie", "h100_sxm", "h200", "gh200", "jetson_orin",
}  # fmt: skip
CPUS = {"oneplus_15r", "laptop_ddr4"}  # phones and laptops: the device is the CPU and its memory
LANE_GT_PER_S = {3: 8e9, 4: 16e9, 5: 32e9}


def text_of(name: str) -> str:
    return files("specmd.hardware_profiles").joinpath(f"{name}.toml").read_text()


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return _write


def test_the_promised_devices_are_shipped():
    assert set(list_profiles()) >= REQUIRED
    assert list_profiles() == sorted(list_profiles())


@pytest.mark.parametrize("name", list_profiles())
def test_a_shipped_profile_is_valid_sourced_and_uncalibrated(name: str):
    profile = load_profile(name)
    assert profile.name == name
    assert not profile.calibrated
    assert any("calibrate" in warning for warning in profile.warnings())
    figures = profile.figures()
    assert {"memory_bytes_per_s", "flops_per_s", "launch_s", "host_link.bytes_per_s"} <= set(
        figures
    )
    for path, figure in figures.items():
        assert len(figure.source) > 10, path
        assert math.isfinite(figure.value), path
        if figure.kind in ("datasheet", "measured"):
            assert figure.url is not None, path
            assert figure.url.startswith("https://"), path


@pytest.mark.parametrize("name", list_profiles())
def test_figures_finds_every_number_of_the_file(name: str):
    def count(node: object) -> int:
        if not isinstance(node, dict):
            return 0
        return ("value" in node) + sum(count(child) for child in node.values())

    assert count(tomllib.loads(text_of(name))) == len(load_profile(name).figures())


@pytest.mark.parametrize("name", list_profiles())
def test_rates_are_of_the_right_order(name: str):
    """Guards against a slip of GB for MB or of bits for bytes."""
    profile = load_profile(name)
    link = profile.host_link
    assert 8e9 <= profile.memory_bytes.value <= 200e9
    slowest_memory, slowest_flops = (3e10, 1e11) if name in CPUS else (1e11, 2e13)
    assert slowest_memory <= profile.memory_bytes_per_s.value <= 1e13
    assert slowest_flops <= profile.flops_per_s.value <= 5e15
    assert 1e-6 <= profile.launch_s.value <= 3e-5
    assert 1e-6 <= link.latency_s.value <= 1e-4
    assert 0.5 <= link.bytes_per_s.value / link.theoretical_bytes_per_s.value <= 0.95
    assert profile.memory_bytes_per_s.value > link.bytes_per_s.value
    if link.type == "pcie":
        wires = LANE_GT_PER_S[link.generation] * link.width * 128 / 130 / 8
        assert link.theoretical_bytes_per_s.value == pytest.approx(wires, rel=1e-6)


def test_a_newer_device_of_the_same_class_is_faster():
    memory = [load_profile(n).memory_bytes_per_s.value for n in ("a100_80gb", "h100_sxm", "h200")]
    assert memory == sorted(set(memory))
    links = [load_profile(n).host_link.bytes_per_s.value for n in ("t4", "rtx4090", "rtx5090")]
    assert links == sorted(set(links))


def test_a_name_is_forgiving_about_case_and_dashes():
    assert load_profile("H100-SXM") == load_profile("h100_sxm")


def test_an_unknown_name_suggests_the_closest():
    with pytest.raises(
        SpecmdError, match=r"unknown hardware profile 'h100_sx'.*did you mean h100_sxm"
    ):
        load_profile("h100_sx")


def test_a_path_is_loaded_and_a_missing_one_is_named(write, tmp_path: Path):
    path = write(text_of("h200").replace('name = "h200"', 'name = "mine"'))
    assert load_profile(path).name == "mine"
    assert load_profile(str(path)).name == "mine"
    with pytest.raises(SpecmdError, match=r"absent\.toml: no such hardware profile"):
        load_profile(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not toml at all [", "not valid TOML"),
        ("", "name: Field required"),
        ("schema = 2", "schema 2 is newer than 1; update specmd"),
    ],
)
def test_garbage_is_an_error_that_names_the_file(write, text: str, says: str):
    with pytest.raises(SpecmdError) as caught:
        read_profile(write(text))
    assert "mine.toml" in str(caught.value)
    assert says in str(caught.value)


def test_binary_garbage_and_a_folder_name_the_file(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecmdError, match=r"mine\.toml: not valid TOML"):
        load_profile(path)
    with pytest.raises(SpecmdError, match="cannot read the hardware profile"):
        load_profile(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('unit = "B/s"', 'unit = "GB/s"', "memory_bytes_per_s.unit"),
        ('unit = "flop/s"', 'unit = "B/s"', "convert it to 'flop/s'"),
        ("value = 4.8e12", "value = -1.0", "memory_bytes_per_s.value"),
        ("value = 4.8e12", "value = 0.0", "memory_bytes_per_s must be larger than 0"),
        ("value = 4.8e12", "value = nan", "memory_bytes_per_s.value"),
        ("width = 16", "", "a pcie link needs generation and width"),
        ("value = 4_194_304", "value = 0.5", "chunk_bytes must be a whole number"),
        ("value = 5.63e10", "value = 9e10", "larger than theoretical_bytes_per_s"),
        ("calibrated = false", "calibrated = false\nspeed = 3", "speed: Extra inputs"),
        ('"assumption: 4-6', '"4-6', "go together"),
    ],
)
def test_a_wrong_field_is_named(write, old: str, new: str, says: str):
    text = text_of("h200")
    assert old in text
    with pytest.raises(SpecmdError) as caught:
        read_profile(write(text.replace(old, new, 1)))
    assert "mine.toml" in str(caught.value)
    assert says in str(caught.value)


def test_a_datasheet_needs_its_url_and_a_profile_is_frozen():
    with pytest.raises(ValidationError, match="needs the url"):
        Figure(value=1.0, unit="s", kind="datasheet", source="some vendor's sheet")
    with pytest.raises(ValidationError, match="frozen"):
        load_profile("h200").name = "other"


def test_an_infinitely_fast_link_is_allowed(write):
    """The simulator's check against replay needs one."""
    text = text_of("h200").replace("value = 5.63e10", "value = inf")
    text = text.replace("value = 6.301538e10", "value = inf").replace(
        "value = 63_015_384_615", "value = inf"
    )
    text = text.replace("value = 6e-06", "value = 0.0")
    link = read_profile(write(text)).host_link
    assert (link.bytes_per_s.value, link.latency_s.value) == (math.inf, 0.0)


def test_a_calibrated_profile_has_no_warning():
    data = tomllib.loads(text_of("h200")) | {"calibrated": True}
    assert HardwareProfile.model_validate(data).warnings() == []


def test_loading_imports_nothing_heavy():
    code = (
        "import sys, specmd.hardware.profile, specmd.hardware.shape\n"
        "specmd.hardware.profile.load_profile('h200')\n"
        "specmd.hardware.shape.load_shape('olmoe-1b-7b')\n"
        "print([m for m in ('numpy', 'torch', 'pandas', 'numba') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
