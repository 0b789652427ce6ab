import pytest

from maskedclip_composer.report.quoted import quoted_table

SEVEN = ["aptos", "idrid", "messidor2", "glaucoma_fundus", "origa", "jsiec", "retina"]


@pytest.mark.parametrize(
    ("table", "amount", "count"), [("table1", "10%", 8), ("table1", "100%", 8), ("table2", "10%", 3)]
)
def test_the_papers_averages_follow_from_its_columns(table, amount, count):
    """To the rounding of the columns and of the average; a number copied wrongly by a point would show."""
    lines = quoted_table(table, amount, SEVEN)
    assert len(lines) == count
    for line in lines:
        assert list(line.scores) == SEVEN
        for score in (0, 1):
            mean = sum(pair[score] for pair in line.scores.values()) / 7
            assert line.average[score] == pytest.approx(mean, abs=0.001)


def test_single_numbers_are_as_printed():
    ten = {line.name: line for line in quoted_table("table1", "10%", SEVEN)}
    assert ten["MaskedCLIP"].average == (0.821, 0.578)
    assert ten["DINOv2"].scores["glaucoma_fundus"] == (0.905, 0.767)
    assert (ten["RETFound"].paired, ten["RETFound"].unpaired) == ("0", "0.90M")
    assert quoted_table("table1", "100%", SEVEN)[4].scores["jsiec"] == (0.997, 0.934)


def test_nothing_is_quoted_beyond_the_papers_amounts_and_tasks():
    assert quoted_table("table1", "50%", SEVEN) == []
    assert quoted_table("table2", "100%", SEVEN) == []
    assert quoted_table("table1", "10%", ["odir"]) == []


def test_an_average_is_over_the_tasks_that_are_shown():
    line = quoted_table("table1", "10%", ["aptos", "idrid"])[0]
    assert line.average_over(["aptos", "idrid"]) == pytest.approx(((0.731 + 0.53) / 2, (0.346 + 0.289) / 2))
    assert line.average_over([*SEVEN, "odir"]) is None
    assert line.average_over(SEVEN[::-1]) == (0.646, 0.371)
