"""Spellings of a pace and of a size."""

import pytest

from specmd.errors import SpecmdError
from specmd.hardware.profile import load_profile
from specmd.measurement.settings import parse_bytes, parse_throttle


@pytest.mark.parametrize(
    ("text", "pace"),
    [
        ("2GB/s", (2e9, 0.0)),
        ("0.5GB/s,20us", (5e8, 20e-6)),
        ("512MiB/s, 1ms", (512 * 2**20, 1e-3)),
        ("100kb/s,0.5S", (1e5, 0.5)),
        ("none", None),
    ],
)
def test_a_pace(text, pace):
    assert parse_throttle(text) == (pace if pace is None else pytest.approx(pace))


def test_a_profile_paces_as_its_host_link():
    link = load_profile("t4").host_link
    assert parse_throttle("t4") == (link.bytes_per_s.value, link.latency_s.value)


@pytest.mark.parametrize("text", ["2GB", "2", "0GB/s", "1.2.3GB/s", "2GB/s,fast"])
def test_a_pace_that_means_nothing(text):
    with pytest.raises(SpecmdError, match="throttle"):
        parse_throttle(text)


def test_an_unknown_profile_suggests_one():
    with pytest.raises(SpecmdError, match="did you mean"):
        parse_throttle("rtx409")


@pytest.mark.parametrize(("text", "size"), [("8GB", 8 * 10**9), ("1.5KiB", 1536), ("77", 77)])
def test_a_size(text, size):
    assert parse_bytes(text) == size


def test_a_size_that_means_nothing():
    with pytest.raises(SpecmdError, match="8GB"):
        parse_bytes("lots")
