import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from maskedclip_composer.report.efficiency import Look, efficiency_figure, render
from maskedclip_composer.report.groups import load_results
from maskedclip_composer.report.resampling import resample
from maskedclip_composer.report.summary import summarise
from tests.report.conftest import AMOUNTS, ENCODERS
from tests.report.test_tables import scores


@pytest.fixture(scope="module")
def figure(whole):
    results = load_results(whole)
    return efficiency_figure(results, summarise(results, resample(results, 50)), "probe")


def test_a_panel_per_task_with_the_mean_of_every_encoder_and_amount(figure):
    assert [axes.get_title() for axes in figure.axes] == ["APTOS2019", "ODIR-5K"]
    for axes, task in zip(figure.axes, ("aptos", "odir"), strict=True):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["10%", "50%", "100%"]
        assert [container.get_label() for container in axes.containers] == list(ENCODERS)
        for container in axes.containers:
            line, _, (bars,) = container
            means = [
                100 * np.mean(scores(task, container.get_label(), "probe", amount.fraction)[0]) for amount in AMOUNTS
            ]
            np.testing.assert_allclose(np.asarray(line.get_ydata(), float), means)
            assert np.all(np.abs(np.asarray(line.get_xdata(), float) - np.arange(3)) < 0.1)
            for segment, mean in zip(bars.get_segments(), means, strict=True):
                assert segment[0, 1] < mean < segment[1, 1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(ENCODERS)


def test_eleven_encoders_differ_in_grey_and_more_of_them_in_colour():
    looks = [Look.of(index) for index in range(28)]
    assert len({look.marker for look in looks[:11]}) == 11
    assert len(set(looks)) == 28


def test_files_are_what_their_names_say(figure):
    png = Image.open(io.BytesIO(render(figure, "png")))
    assert png.format == "PNG"
    assert png.size == tuple(round(200 * side) for side in figure.get_size_inches())
    assert ElementTree.fromstring(render(figure, "svg")).tag.endswith("svg")
