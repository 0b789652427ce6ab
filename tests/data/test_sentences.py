import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskedclip_composer.data.sentences import SentenceConfig, split_sentences
from maskedclip_composer.errors import UserError

FUNDUS = (
    "Colour fundus photograph of the right eye, taken by Dr. Meyer. Optic disc with distinct margins, C/D ratio 0.6, "
    "i.e. enlarged; thin rim inferotemporally. There are approx. 20 microaneurysms vs. 5 at the last visit! "
    "Is the macula dry?\nHard exudates, e.g. superior to the fovea. Impression: moderate NPDR."
)
# The form that MIMIC-CXR's reports have, written anew.
CHEST = """FINDINGS: PA and lateral views. Loculated right pleural effusion with basilar opacity, 2.5 cm wide.

IMPRESSION:
1. Unchanged right effusion.
2. No pneumothorax
3) Cardiomegaly, see report No. 3 of J. Smith."""
KEYWORDS = "moderate non proliferative retinopathy\nepiretinal membrane\n"


def split(text):
    return [text[begin:end] for begin, end in split_sentences(text)]


def test_reports_fall_into_their_sentences():
    assert split(FUNDUS) == [
        "Colour fundus photograph of the right eye, taken by Dr. Meyer.",
        "Optic disc with distinct margins, C/D ratio 0.6, i.e. enlarged;",
        "thin rim inferotemporally.",
        "There are approx. 20 microaneurysms vs. 5 at the last visit!",
        "Is the macula dry?",
        "Hard exudates, e.g. superior to the fovea.",
        "Impression: moderate NPDR.",
    ]
    assert split(CHEST) == [
        "FINDINGS: PA and lateral views.",
        "Loculated right pleural effusion with basilar opacity, 2.5 cm wide.",
        "IMPRESSION:\n1. Unchanged right effusion.",
        "2. No pneumothorax",
        "3) Cardiomegaly, see report No. 3 of J. Smith.",
    ]
    assert split(KEYWORDS) == ["moderate non proliferative retinopathy", "epiretinal membrane"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        ("0.6. 1.2!", []),
        ("normal fundus", ["normal fundus"]),
        ("Drusen. 12.", ["Drusen. 12."]),
        ("*** Drusen. Scar.", ["*** Drusen.", "Scar."]),
        ("Impression: 1. Mild NPDR 2. Drusen 3. Scar", ["Impression: 1. Mild NPDR", "2. Drusen", "3. Scar"]),
        ("The number of drusen is 1. The macula is flat.", ["The number of drusen is 1.", "The macula is flat."]),
        ("There are 2. One is large.", ["There are 2.", "One is large."]),
        ("Cup 0.4. Rim thin.", ["Cup 0.4.", "Rim thin."]),
        ("Scar (old.) No fluid...  Stable", ["Scar (old.)", "No fluid...", "Stable"]),
        ("Haemorrhages: no. Exudates: yes.", ["Haemorrhages: no.", "Exudates: yes."]),
        ("Conclusion:", ["Conclusion:"]),
        ("Papillenödem; Äderhautnävus. Œdème maculaire", ["Papillenödem;", "Äderhautnävus.", "Œdème maculaire"]),
    ],
)
def test_where_a_sentence_ends(text, sentences):
    assert split(text) == sentences


@given(st.text(alphabet="ab C.!;:)1 2\n", max_size=60))
def test_every_letter_belongs_to_one_sentence_and_each_sentence_has_one(text):
    spans = split_sentences(text)
    covered = [position for begin, end in spans for position in range(begin, end)]
    assert covered == sorted(set(covered))
    assert {position for position, letter in enumerate(text) if letter.isalpha()} <= set(covered)
    assert all(any(letter.isalpha() for letter in text[begin:end]) for begin, end in spans)
    assert all(text[begin:end] == text[begin:end].strip() for begin, end in spans)


def test_no_sentence_at_all_is_refused():
    with pytest.raises(UserError, match=r"data\.sentences\.max_sentences = 0: must be positive"):
        SentenceConfig(max_sentences=0)
