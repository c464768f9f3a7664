"""The fit of the link finds what the times were made from."""

import pytest

from specmd.calibration.link import fit_link

SIZES, COUNTS = (25_000, 100_000, 16_000_000), (1, 2, 4)


def times(wake_s, latency_s, bytes_per_s):
    return [(n, k, wake_s + k * (latency_s + n / bytes_per_s)) for n in SIZES for k in COUNTS]


@pytest.mark.parametrize(
    "truth", [(3e-4, 5e-5, 6e9), (0.0, 5e-5, 6e9), (3e-4, 0.0, 1e11), (0.0, 0.0, 1e9)]
)
def test_what_the_times_were_made_from(truth):
    found = fit_link(times(*truth))
    assert (found.wake_s, found.latency_s) == pytest.approx(truth[:2], abs=1e-9)
    assert found.bytes_per_s == pytest.approx(truth[2], rel=1e-6)
    assert found.misfit == pytest.approx(0, abs=1e-9)


def test_no_figure_is_negative_whatever_the_noise():
    """Times that fall with the number of transfers would want a negative latency."""
    noisy = [(n, k, t * (1.0 - 0.4 * (k > 1) * (n < 1e6))) for n, k, t in times(1e-3, 1e-5, 5e9)]
    found = fit_link(noisy)
    assert found.wake_s >= 0
    assert found.latency_s >= 0
    assert found.bytes_per_s > 0
    assert found.misfit > 0
