"""Terms add up: what a part asks holds for the whole, and a further part never loosens anything."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_prep.readers.catalogue import DATASETS
from maskedclip_composer.cards.terms import (
    ALLOWED,
    COMMERCE,
    CONDITION,
    NO,
    PASSING_ON,
    QUESTIONS,
    RESEARCH,
    UNKNOWN,
    Part,
    Terms,
)
from maskedclip_composer.cards.terms_section import meaning, terms_section

LICENCES = [
    *("CC0", "CC BY 4.0", "CC BY-SA 4.0", "CC BY-NC-ND 4.0", "CC-BY-NC-SA-4.0", "competition rules", "none stated", ""),
    *("Some licence of ours", "ADCIS agreement", "CC BY 4.0 (check at the source)", "challenge terms"),
]
SAID = ["", "research use", "do not redistribute", "ask the authors before anything else", "share alike"]
parts = st.builds(Part, st.sampled_from("abcdef"), st.sampled_from(LICENCES), st.sampled_from(SAID))


@settings(max_examples=150, deadline=None)
@given(st.lists(parts, max_size=5), st.lists(parts, max_size=3))
def test_a_further_part_never_loosens_the_terms(some, more):
    few, all_ = Terms.of(some), Terms.of([*more, *some])
    assert set(few.asks) <= set(all_.asks)
    assert set(few.whole) <= set(all_.whole)
    assert set(few.unknown) <= set(all_.unknown)
    assert bool(few.conflicts) <= bool(all_.conflicts)
    for question in QUESTIONS:
        assert few.strictness[question] <= all_.strictness[question]
    assert Terms.of([*some, *more]) == all_


@settings(max_examples=50, deadline=None)
@given(st.lists(parts, min_size=1, max_size=5))
def test_the_whole_is_as_strict_as_its_strictest_part(some):
    whole = Terms.of(some)
    for question in QUESTIONS:
        each = [Terms.of([part]).strictness[question] for part in some]
        assert whole.strictness[question] == max(each)
        named = {name for names in whole.reasons[question].values() for name in names}
        strictest = {part.name for part, strict in zip(some, each, strict=True) if strict == max(each)}
        assert named == (strictest if max(each) > ALLOWED else set())


def strictness(licence, said=""):
    return tuple(
        Terms.of([Part("a", licence, said)]).strictness[question] for question in (RESEARCH, COMMERCE, PASSING_ON)
    )


def test_single_licences():
    assert strictness("CC0") == (ALLOWED, ALLOWED, ALLOWED)
    assert strictness("CC BY 4.0") == (ALLOWED, ALLOWED, CONDITION)
    assert strictness("CC BY-NC-ND 4.0") == (ALLOWED, NO, NO)
    assert strictness("CC BY-SA 4.0") == (ALLOWED, ALLOWED, CONDITION)
    assert strictness("ADCIS agreement", "research use on agreement, no redistribution") == (CONDITION, NO, NO)
    # What is not known stays so, whatever else is said.
    for licence in ("", "none stated", "A licence of ours", "CC BY 4.0 (check at the source)"):
        assert strictness(licence) == (UNKNOWN, UNKNOWN, UNKNOWN)


@pytest.mark.parametrize("licence", ["CC BY NC 4.0", "cc-by-nc", "CC BY 4.0, not for commercial use"])
def test_no_commercial_use_however_it_is_written(licence):
    assert strictness(licence) == (ALLOWED, NO, CONDITION)


def test_terms_that_follow_a_licence_count():
    assert strictness("CC BY 4.0 (research purposes only)") == (ALLOWED, NO, CONDITION)
    assert strictness("CC BY 4.0, may not be redistributed") == (ALLOWED, ALLOWED, NO)
    assert strictness("CC0", "for internal evaluation") == (UNKNOWN, UNKNOWN, UNKNOWN)
    assert strictness("not public domain, all rights reserved") == (UNKNOWN, UNKNOWN, UNKNOWN)
    assert strictness("A licence of ours", "research use") == (UNKNOWN, NO, UNKNOWN)
    assert "ask the owners" not in Terms.of([Part("a", "CC BY 4.0", "task 2")]).asks
    assert ("CC0", "nothing", "a") in Terms.of([Part("a", "CC0")]).lines()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(LICENCES), st.sampled_from(SAID), st.text("abcdefxyzäß界012", min_size=1, max_size=9))
def test_a_word_that_is_not_known_makes_a_part_unknown(licence, said, word):
    assume(word != "cc0")
    for part in (Part("a", f"{licence} {word}", said), Part("a", licence, f"{said}; not{word}")):
        terms = Terms.of([part])
        assert terms.unknown == ["a"]
        assert all(strict >= UNKNOWN for strict in terms.strictness.values())


def test_no_known_set_is_taken_for_free():
    for dataset in DATASETS.values():
        found = Terms.of([Part(dataset.name, dataset.licence, dataset.terms)])
        assert found.strictness[PASSING_ON] > ALLOWED, dataset.name


def test_an_unknown_part_is_named_also_where_another_is_stricter():
    terms = Terms.of([Part("strict", "CC BY-NC-ND 4.0"), Part("dark", "")])
    assert terms.strictness[PASSING_ON] == NO
    assert terms.unknown == ["dark"]
    assert "are the terms of: dark." in "\n".join(terms_section(terms, "It"))


def test_share_alike_beside_what_it_does_not_allow_is_a_conflict():
    alike = Part("alike", "CC BY-SA 4.0")
    assert not Terms.of([alike, Part("b", "CC BY 4.0")]).conflicts
    assert Terms.of([alike, Part("b", "CC BY-NC 4.0")]).conflicts
    assert Terms.of([alike, Part("b", "ODC-By, share-alike")]).conflicts
    assert "No single licence" in "\n".join(terms_section(Terms.of([alike, Part("b", "", "research use")]), "It"))


@settings(max_examples=100, deadline=None)
@given(st.lists(parts, max_size=4))
def test_the_words_say_what_the_answers_are(some):
    terms = Terms.of(some)
    words = meaning(terms)
    assert ("may not be passed on" in words) == (terms.strictness[PASSING_ON] == NO)
    assert ("may not be used commercially" in words) == (terms.strictness[COMMERCE] == NO)
    assert words.endswith(".")
