import math

import pytest

from maskedclip_composer.models.teacher import TeacherConfig


def test_without_a_final_value_the_momentum_is_constant():
    assert {TeacherConfig(momentum=0.9).at(done) for done in (0.0, 0.3, 1.0)} == {0.9}


def test_the_momentum_goes_to_its_final_value_by_a_cosine():
    config = TeacherConfig(momentum=0.994, final_momentum=1.0)
    assert config.at(0.0) == pytest.approx(0.994)
    assert config.at(0.5) == pytest.approx(0.997)
    assert config.at(1.0) == 1.0
    for done in (0.1, 0.35, 0.8):
        assert config.at(done) == pytest.approx(1 - 0.006 * (math.cos(math.pi * done) + 1) / 2)
