from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskedclip_composer.evaluation.statistics.holm import holm


def by_closure(p_values: list[float]) -> list[float]:
    """Holm's method is the closed test by Bonferroni: a hypothesis falls with every set of hypotheses that holds it."""
    indices = range(len(p_values))
    sets = list(chain.from_iterable(combinations(indices, size) for size in range(1, len(p_values) + 1)))
    bonferroni = {chosen: min(1, len(chosen) * min(p_values[index] for index in chosen)) for chosen in sets}
    return [max(p for chosen, p in bonferroni.items() if index in chosen) for index in indices]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.02, 1.0])), max_size=7))
def test_equals_the_closed_test_by_bonferroni(p_values):
    assert holm(p_values) == pytest.approx(by_closure(p_values), abs=1e-15)


def test_a_false_alarm_among_seven_sets_is_as_rare_as_the_level():
    rng = np.random.default_rng(0)
    trials = 4000
    alarms = sum(min(holm(rng.random(7).tolist())) <= 0.05 for _ in range(trials))
    assert alarms / trials == pytest.approx(0.05, abs=0.012)


def test_refuses_what_is_no_probability():
    for values in ([0.1, -0.1], [1.1], [float("nan")]):
        with pytest.raises(ValueError, match="must lie in"):
            holm(values)
