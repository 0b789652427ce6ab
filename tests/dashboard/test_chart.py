import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from maskedclip_composer.dashboard.chart import HEIGHT, WIDTH, Chart, Line, draw


def chart(*columns: np.ndarray, **options) -> str:
    lines = [Line(name=f"line {index}", x=np.arange(len(y)) + 1, y=y) for index, y in enumerate(columns)]
    return draw(Chart(title="A loss", unit="nats", lines=lines, **options))


def points(svg: str, index: int = 0) -> np.ndarray:
    path = re.findall(r'<path class="c\d" d="([^"]*)"', svg)[index]
    return np.array([[float(part) for part in pair.split()] for pair in re.findall(r"[ML]([-\d.]+ [-\d.]+)", path)])


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(3, 1, 50),
        np.linspace(3, 1, 5000),
        np.full(7, 2.0),
        np.zeros(3),
        np.array([1.5]),
        np.array([1e-9, 2e-9]),
        np.array([-1e7, 1e7]),
        np.array([np.nan, np.nan]),
        np.array([1.0, np.inf, 2.0]),
    ],
)
def test_all_points_lie_in_the_picture_and_all_texts_too(values):
    svg = chart(values)
    root = ET.fromstring(svg)
    found = points(svg)
    assert len(found) <= 200
    if np.isfinite(values).any():
        assert (found[:, 0] >= 50).all()
        assert (found[:, 0] <= WIDTH).all()
        assert (found[:, 1] >= 0).all()
        assert (found[:, 1] <= HEIGHT - 30).all()
    for text in root.iter("text"):
        assert 0 <= float(text.attrib["x"]) <= WIDTH
        assert 0 <= float(text.attrib["y"]) <= HEIGHT


def test_more_is_higher_and_later_is_further_right():
    found = points(chart(np.array([1.0, 3.0, 2.0])))
    assert found[1, 1] < found[2, 1] < found[0, 1]
    assert (np.diff(found[:, 0]) > 0).all()


def test_an_axis_has_round_numbers_that_stand_where_they_belong():
    svg = chart(np.array([0.0, 10.0]))
    ticks = dict(re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)<', svg))
    places = {float(label): float(place) - 3.5 for place, label in ticks.items()}
    found = points(svg)
    assert places[0.0] == pytest.approx(found[0, 1], abs=0.2)
    assert places[10.0] == pytest.approx(found[1, 1], abs=0.2)


def test_what_is_not_finite_is_a_gap():
    path = re.search(r'd="([^"]*)"', chart(np.array([1.0, 2.0, np.nan, 2.0, 1.0])))
    assert path is not None
    assert path[1].count("M") == 2


def test_names_are_escaped_and_said_to_those_who_do_not_see():
    lines = [Line(name='<script>"&', x=np.arange(2), y=np.array([1.0, 2.5]))]
    svg = draw(Chart(title='a "title"', unit="<b>", lines=lines, marks=[("<limit>", 2.0)]))
    assert "<script>" not in svg
    assert ET.fromstring(svg).attrib["aria-label"] == 'a "title": <script>"& 2.5'


def test_a_mark_is_in_the_picture_even_where_no_line_reaches():
    svg = chart(np.array([1.0, 2.0]), marks=[("limit", 50.0)])
    place = re.search(r'class="mark" x1="\d+" x2="\d+" y1="([\d.]+)"', svg)
    assert place is not None
    assert 0 <= float(place[1]) < points(svg)[:, 1].min()
