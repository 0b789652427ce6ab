"""The data card counts what the records say, and states what the licences ask of the whole."""

import pytest

from data_prep.card import card
from data_prep.contamination import Contamination
from maskedclip_composer.cards.tally import Tally
from maskedclip_composer.data.records import SCHEMA

EMPTY = {
    "status": "stored",
    "reason": "",
    "folder": "",
    "dataset": "a",
    "image": "1.jpg",
    "patient": "",
    "eye": "",
    "label": "",
    "label_name": "",
    "texts": [],
    "text_categories": [],
    "text_kinds": [],
    "licence": "CC0",
    "crop_status": "cropped",
    "bytes": 1,
    "verbatim": False,
    "original_width": 10,
    "original_height": 10,
    **dict.fromkeys(("sharpness", "brightness", "clipped", "field"), 0.5),
}


def write(*records, abouts=(), allowed=()):
    assert set(EMPTY) <= set(SCHEMA.names)
    tally = Tally()
    for record in records:
        tally.add(EMPTY | record)
    return card("Title", tally, list(abouts), {"size": 64}, allowed)


def table(text, heading):
    """The cells of the table below a heading."""
    section = text.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def demands(text):
    return [line[2:] for line in text.split("## Sources")[0].splitlines() if line.startswith("- ")]


@pytest.mark.parametrize(
    ("licence", "terms", "expected"),
    [
        ("CC BY 4.0", "", ["credited"]),
        ("CC BY-NC-ND 4.0", "", ["credited", "commercially", "another form"]),
        ("CC BY-SA 4.0", "", ["credited", "keep that licence"]),
        ("none stated", "do not redistribute", ["may not be passed on", "nobody has stated"]),
        ("competition rules", "", ["rules of competitions"]),
        ("ADCIS agreement", "research use", ["research only", "have signed"]),
        ("PhysioNet Credentialed Health Data Licence", "", ["have signed"]),
        ("unclear: scans of books", "", ["nobody has stated"]),
        ("CC BY 4.0 (check at the source)", "", ["credited", "checked at the sources"]),
        ("", "", ["terms were not given"]),
        ("Some licence", "", ["bound by the terms of its parts"]),
    ],
)
def test_what_a_licence_asks_of_the_whole(licence, terms, expected):
    found = demands(write({"licence": licence}, abouts=[{"name": "a", "terms": terms}]))
    assert len(found) == len(expected)
    for demand, words in zip(found, expected, strict=True):
        assert words in demand


def test_the_demands_of_all_parts_are_united_and_each_licence_is_listed_with_its_sets():
    text = write(
        {"dataset": "a", "licence": "CC BY 4.0"},
        {"dataset": "b", "licence": "CC BY-NC 4.0"},
        {"dataset": "c", "licence": "CC BY 4.0"},
        {"dataset": "d", "licence": "CC BY-SA 4.0", "status": "quarantined", "reason": "no such file"},
    )
    assert [
        words for words in ("credited", "commercially", "keep that licence") if words in " ".join(demands(text))
    ] == [
        "credited",
        "commercially",
    ]
    assert table(text, "Terms")[-2:] == [
        ["CC BY 4.0", "credit the authors", "a, c"],
        ["CC BY-NC 4.0", "credit the authors; no commercial use", "b"],
    ]


def test_counts():
    text = write(
        {"folder": "train", "label": "1", "label_name": "glaucoma", "patient": "p", "eye": "left"},
        {"folder": "train", "label": "1", "label_name": "glaucoma", "patient": "p", "eye": "right"},
        {"folder": "test", "label": "0", "crop_status": "failed"},
        {"status": "quarantined", "reason": "not an image"},
        {"status": "quarantined", "reason": "not an image"},
        {"texts": ["x", "y"], "text_categories": ["x", ""], "text_kinds": ["category", "sentence"]},
        abouts=[
            {"name": "a", "citation": "A et al.", "source": "https://a.example", "notes": ["half of it is missing"]}
        ],
    )
    assert table(text, "Sources: 4 photographs of 1 data set") == [
        ["a", "4", "1", "CC0", "not given", "A et al.", "https://a.example"]
    ]
    assert table(text, "Photographs and labels") == [
        ["train", "2", "left 1, right 1", "1 (glaucoma) 2"],
        ["test", "1", "unknown 1", "0 1"],
        [".", "1", "unknown 1", "x 1"],
    ]
    assert "## Texts: 2, 2 distinct (category 1, sentence 1)" in text
    assert "Crop to the retina: cropped 3, failed 1." in text
    assert table(text, "Not stored: 2") == [["quarantined", "a", "not an image", "2"]]
    assert "- a: half of it is missing" in text
    assert table(text, "Preparation") == [["size", "64"]]


def test_copies_are_counted_together_and_listed_one_by_one():
    copies = [{"status": "duplicate", "image": f"{n}.jpg", "reason": f"is {n - 1}.jpg"} for n in range(45)]
    text = write({}, *copies, {"status": "contaminated", "image": "t.jpg", "reason": "is the test photograph x of y"})
    assert ["duplicate", "a", "a copy (duplicate)", "45"] in table(text, "Not stored: 46")
    assert len(table(text, "Duplicates left out: 45")) == 40
    assert "And 5 more" in text
    assert table(text, "Photographs of downstream test sets kept out: 1") == [
        ["a", "t.jpg", "is the test photograph x of y"]
    ]


def test_allowed_test_photographs_are_told():
    line = Contamination(
        group="unpaired", set="a", image="1.jpg", status="stored", test_set="y", test_image="x", distance=3
    )
    text = write({}, allowed=[line])
    assert table(text, "Photographs of downstream test sets KEPT for pre-training: 1") == [
        ["a", "1.jpg", "is or looks like the test photograph x of y"]
    ]
    assert "KEPT" not in write({})


def test_conflicting_labels_of_identical_photographs():
    group = {"images": ["1.jpg", "2.jpg"], "splits": ["test", "train"], "labels": ["0", "3"]}
    text = write({}, abouts=[{"name": "a", "identical": [group, group | {"labels": ["0"]}]}])
    heading = "Byte-identical photographs: 2 groups, 1 with conflicting labels"
    assert table(text, heading)[0] == ["1.jpg = 2.jpg", "test, train", "0 / 3"]


def test_what_could_break_a_table_does_not():
    text = write({"licence": "mine | yours\n<b>"})
    assert "| mine \\| yours &lt;b&gt; |" in text
