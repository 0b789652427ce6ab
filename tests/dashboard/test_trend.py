import numpy as np
import pytest

from maskedclip_composer.dashboard.trend import FEWEST, trend

NOISE = np.random.default_rng(1).normal(size=600)


@pytest.mark.parametrize(
    ("values", "overall", "lately"),
    [
        (5 - np.arange(600) / 100 + 0.1 * NOISE, "falling", "falling"),
        (np.arange(600) / 100 + 0.1 * NOISE, "rising", "rising"),
        (np.exp(-np.arange(600) / 40) + 1e-4 * NOISE, "falling", "level"),
        (np.abs(np.arange(600) - 300) / 100.0, "level", "rising"),  # down, and up again
        (np.full(600, 3.0), "level", "level"),
        (5 - np.arange(FEWEST) / 10, "falling", "short"),
        (5 - np.arange(FEWEST - 1) / 10, "short", "short"),
        (np.array([]), "short", "short"),
        (np.full(50, np.nan), "short", "short"),
    ],
)
def test_directions(values, overall, lately):
    found = trend(values)
    assert (found.overall, found.lately) == (overall, lately)


def test_a_mirrored_metric_has_the_mirrored_trend():
    opposite = {"falling": "rising", "rising": "falling", "level": "level"}
    values = np.exp(-np.arange(300) / 100) + 0.05 * NOISE[:300]
    one, other = trend(values), trend(-values)
    assert opposite[one.overall] == other.overall
    assert opposite[one.lately] == other.lately


def test_noise_alone_is_hardly_ever_a_trend():
    runs = np.random.default_rng(2).normal(size=(200, 150))
    called = sum(trend(values).overall != "level" for values in runs)
    assert called <= 20  # a level of 5 % promises ten


def test_a_sure_change_that_is_tiny_beside_what_was_is_level():
    values = np.concatenate([np.linspace(2, -0.98, 100), np.linspace(-0.985, -0.98, 200)])
    assert trend(values).lately == "level"


def test_values_that_are_not_finite_are_left_out():
    values = 5 - np.arange(300) / 100
    spoilt = values.copy()
    spoilt[::7] = np.nan
    assert trend(spoilt).overall == "falling"
    assert np.isfinite(trend(spoilt).last)


def test_first_and_last_are_means_of_a_tenth():
    found = trend(np.concatenate([np.full(10, 4.0), np.full(80, 3.0), np.full(10, 2.0)]))
    assert (found.first, found.last) == (4.0, 2.0)
