import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskedclip_composer.data.prompts import Category, PromptConfig, PromptPack, fill, template_complaint
from maskedclip_composer.errors import UserError

PACK = PromptPack(
    name="toy",
    version="1",
    language="en",
    licence="CC0-1.0",
    sources=(),
    templates=("A {attribute} photograph of {category}", "{category}, photographed"),
    attributes=("", "colour", "dim"),
    categories={
        "glaucoma": Category(name="glaucoma", descriptions=("a thin rim", "a deep cup"), synonyms=("Grüner Star",)),
        "AMD": Category(name="macular degeneration"),
    },
    zero_shot={"toy": {"disease": {"0": "AMD", "1": "glaucoma"}, "other": {"x": "glaucoma"}}},
    sha256="",
)


def drawn(text, kind, number=1, pack=PACK):
    rng = np.random.default_rng(5)
    return [pack.draw(text, kind, rng) for _ in range(number)]


def test_every_wording_template_and_attribute_is_drawn_equally_often():
    number = 9000
    counts = Counter(drawn("glaucoma", "category", number))
    expected = {}
    for words in ("glaucoma", "a thin rim", "a deep cup"):
        expected |= {f"A {attribute} photograph of {words}": 1 / 18 for attribute in ("colour", "dim")}
        expected |= {f"A photograph of {words}": 1 / 18, f"{words}, photographed": 3 / 18}
    assert set(counts) == set(expected)
    statistic = sum((counts[text] - number * share) ** 2 / (number * share) for text, share in expected.items())
    assert statistic < 31.3  # 99.9 % of chi-square with 11 degrees of freedom


def test_a_finding_keeps_its_words_in_a_template():
    assert set(drawn("glaucoma", "finding", 300)) == {
        "A photograph of glaucoma",
        "A colour photograph of glaucoma",
        "A dim photograph of glaucoma",
        "glaucoma, photographed",
    }


def test_a_category_that_the_pack_does_not_know_keeps_its_words():
    assert set(drawn("Coats disease", "category", 300)) == {
        fill(template, "Coats disease", attribute) for template in PACK.templates for attribute in PACK.attributes
    }


def test_a_category_is_found_by_a_synonym_and_drawn_by_its_name():
    assert set(drawn("grüner  star", "category", 500)) == set(drawn("glaucoma", "category", 500))
    assert all("macular degeneration" in text for text in drawn("amd", "category", 50))


@given(st.text(max_size=30))
def test_a_sentence_is_verbatim(text):
    assert drawn(text, "sentence") == [text]


@given(st.sampled_from(["glaucoma", "AMD", "x"]), st.sampled_from(["category", "finding"]), st.integers(0, 2**64 - 1))
def test_a_draw_is_a_function_of_its_generator_and_one_of_the_prompts(text, kind, seed):
    first, second = (PACK.draw(text, kind, np.random.default_rng([seed, 3])) for _ in range(2))
    assert first == second
    assert first in PACK.prompts(text, kind)
    assert "  " not in first
    assert first == first.strip()
    assert not set("{}") & set(first)


@given(st.text(max_size=30))
def test_canonical_is_a_projection_and_blind_to_case(text):
    once = PACK.canonical(text)
    assert PACK.canonical(once) == once
    assert PACK.canonical(f"  {text} ") == once


def test_canonical_names():
    assert [PACK.canonical(text) for text in ("GLAUCOMA", "grüner Star", "macular  Degeneration", "amd", "Else")] == [
        "glaucoma",
        "glaucoma",
        "AMD",
        "AMD",
        "else",
    ]
    assert PACK.canonical("a thin rim") == "a thin rim"


def test_class_prompts_are_what_training_draws_of_each_class():
    prompts = PACK.class_prompts("toy")
    assert list(prompts) == ["0", "1"]
    assert set(prompts["1"]) == set(drawn("glaucoma", "category", 2000))
    assert len(set(prompts["1"])) == len(prompts["1"])
    assert list(PACK.class_prompts("toy", "other")) == ["x"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("else",), "no zero-shot classes of else, it has toy"), (("toy", "grade"), "by grade; it has disease, other")],
)
def test_an_unknown_set_or_labelling_is_named(arguments, said):
    with pytest.raises(UserError, match=said):
        PACK.class_prompts(*arguments)


def test_without_expert_knowledge_a_category_is_its_name():
    pack = PromptConfig(expert=False).applied_to(PACK)
    assert set(drawn("glaucoma", "category", 300, pack)) == set(drawn("glaucoma", "finding", 300))


def test_a_template_of_ones_own_is_the_only_one():
    assert (
        drawn("AMD", "category", 9, PromptConfig(template="{category}").applied_to(PACK))
        == ["macular degeneration"] * 9
    )
    text = drawn("x", "finding", 1, PromptConfig(template="Fundus:  {category}").applied_to(PACK))
    assert text == ["Fundus: x"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("A photograph", "must name {category} once"),
        ("{category} and {category}", "must name {category} once"),
        ("{label} {category}", "{label} is not known; write {category} and, where wanted, {attribute}"),
    ],
)
def test_a_template_without_its_place_is_refused(template, said):
    assert said in template_complaint(template)
    with pytest.raises(UserError) as caught:
        PromptConfig(template=template)
    assert f"data.prompts.template = {template!r}: " in str(caught.value)
    assert said in str(caught.value)


def test_braces_in_a_text_are_no_places():
    assert fill("{attribute} {category}", "{attribute}", "x") == "x {attribute}"


def test_the_default_changes_nothing_of_the_pack():
    assert PromptConfig().applied_to(PACK) == PACK
    assert math.prod(map(len, (PACK.templates, PACK.attributes))) == len(PACK.prompts("x", "finding"))
