import re
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskedclip_composer.data.entities import EntityConfig, LexiconTagger, ScispacyTagger, build_tagger
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.errors import UserError


def found(terms, text):
    return [text[begin:end] for begin, end in LexiconTagger(terms)(text)]


def forms(word):
    """A last word and its regular plurals."""
    return {word, word + "s", word + "es"} if not re.search("[^aeiou]y$", word) else {word, word[:-1] + "ies"}


def by_words(terms, text):
    """The longest term at each word, from left to right, word by word instead of by an expression."""
    words = [(match[0], *match.span()) for match in re.finditer(r"\w+", text)]
    spans, at = [], 0
    while at < len(words):
        best = 0
        for term in terms:
            wanted, got = term.split(), words[at : at + len(term.split())]
            gaps = [text[one[2] : two[1]] for one, two in pairwise(got)]
            same = [word for word, *_ in got[:-1]] == wanted[:-1] and len(got) == len(wanted)
            if same and got[-1][0] in forms(wanted[-1]) and all(set(gap) <= set(" -\n") for gap in gaps):
                best = max(best, len(wanted))
        if best:
            spans.append((words[at][1], words[at + best - 1][2]))
        at += best or 1
    return spans


WORDS = st.sampled_from(["a", "as", "ases", "by", "bies", "c", "ca"])


@given(
    st.lists(st.lists(WORDS, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=6),
    st.lists(st.tuples(WORDS, st.sampled_from([" ", "-", "\n ", ", ", ". "])), max_size=12),
)
def test_finds_what_a_search_word_by_word_finds(terms, words):
    text = "".join(word + gap for word, gap in words)
    assert LexiconTagger(terms)(text) == by_words(terms, text)


@pytest.mark.parametrize(
    ("terms", "text", "spans"),
    [
        (["vein occlusion", "retinal vein"], "retinal vein occlusion", ["retinal vein"]),
        (["vein", "retinal vein occlusion", "retinal vein"], "Retinal-Vein\nOcclusions", ["Retinal-Vein\nOcclusions"]),
        (["macular hole"], "full\u2013thickness macular \u2013 hole", ["macular \u2013 hole"]),
        (["haemorrhage", "oedema"], "hemorrhages, edema, Haemorrhage, œdema", ["hemorrhages", "edema", "Haemorrhage"]),
        (["optic neuropathy", "ray"], "optic neuropathies, rays, raies", ["optic neuropathies", "rays"]),
        (["disc"], "discs, discoid, disc_1, subdisc, disc/macula", ["discs", "disc"]),
        (["MA", "OD", "PDR"], "Ma, MAs, mas, OD, od, pdr", ["MAs", "OD", "pdr"]),
        (["HE", "DR"], "He saw Dr. Who: HE and DR", ["HE", "DR"]),
        (["C/D ratio", "1.5"], "c/d-ratio 1.5, 125", ["c/d-ratio", "1.5"]),
        (["Papillenödem", "硬性渗出"], "PAPILLENÖDEM; 硬性渗出", ["PAPILLENÖDEM", "硬性渗出"]),
        (["drusen"], "", []),
    ],
)
def test_words_as_they_are_written(terms, text, spans):
    assert found(terms, text) == spans


def test_the_retinal_lexicon_marks_keywords_and_reports():
    tagger = build_tagger(EntityConfig())

    def marked(text):
        return [text[begin:end] for begin, end in tagger(text)]

    assert marked("moderate non proliferative retinopathy") == ["moderate", "non proliferative retinopathy"]
    assert marked("Epiretinal membrane") == ["Epiretinal membrane"]
    report = "Left eye: cup-to-disc ratio 0.7. He has few dot and blot hemorrhages superotemporally; mild NPDR."
    assert marked(report) == [
        *("Left eye", "cup-to-disc ratio", "few", "dot and blot hemorrhages", "superotemporally", "mild", "NPDR"),
    ]


def test_the_chest_lexicon_marks_the_words_of_the_figure():
    report = "Loculated right pleural effusion with basilar opacities. No pneumothorax."
    spans = build_tagger(EntityConfig(lexicon="chest"))(report)
    assert [report[begin:end] for begin, end in spans] == [
        *("Loculated", "right", "pleural effusion", "basilar", "opacities", "pneumothorax"),
    ]


def test_no_category_of_the_pack_is_without_an_entity():
    tagger = build_tagger(EntityConfig())
    silent = [name for name in read_pack("retina-en").categories if not tagger(name)]
    assert silent == []


class Spacy:
    """Stands in for spaCy: a model whose entities are the words with a capital."""

    @staticmethod
    def load(name):
        if name != "en_core_sci_sm":
            raise OSError("[E050] Can't find model")
        return lambda text: SimpleNamespace(
            ents=[SimpleNamespace(start_char=m.start(), end_char=m.end()) for m in re.finditer(r"[A-Z]\w+", text)]
        )


def test_a_trained_tagger_gives_its_entities(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", Spacy)
    assert build_tagger(EntityConfig(tagger="scispacy"))("no Drusen, a Scar") == [(3, 9), (13, 17)]
    with pytest.raises(UserError, match=r"data\.entities\.model = other: cannot be loaded \(\[E050\].*pip install"):
        ScispacyTagger("other")


def test_without_spacy_the_installation_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError, match=r"maskedclip-composer\[scispacy\].*or set data\.entities\.tagger=lexicon"):
        build_tagger(EntityConfig(tagger="scispacy"))


def test_a_model_of_spacy_itself(tmp_path):
    spacy = pytest.importorskip("spacy", reason="the extra scispacy is not installed")
    model = spacy.blank("en")
    model.add_pipe("entity_ruler").add_patterns([{"label": "ENTITY", "pattern": "optic disc"}])
    model.to_disk(tmp_path / "model")
    assert ScispacyTagger(str(tmp_path / "model"))("a pale optic disc, an optic disc") == [(7, 17), (22, 32)]
