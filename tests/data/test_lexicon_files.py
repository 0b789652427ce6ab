import hashlib
from collections import Counter

import pytest
import yaml

from maskedclip_composer.data.entities import EntityConfig, build_tagger
from maskedclip_composer.data.lexicon_files import LEXICONS, read_lexicon
from maskedclip_composer.errors import UserError

MINIMAL = {
    "name": "mine",
    "version": "1",
    "language": "de",
    "licence": "CC0-1.0",
    "sources": [],
    "terms": {"lesions": ["Drusen", ["Blutung", "hartes Exsudat"]], "places": ["nasal"]},
}


def written(folder, content):
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_lexicon_is_read_as_written(tmp_path):
    path = written(tmp_path, MINIMAL)
    lexicon = read_lexicon(str(path))
    assert (lexicon.name, lexicon.version, lexicon.language, lexicon.sources) == ("mine", "1", "de", ())
    assert lexicon.terms == {"lesions": ("Drusen", "Blutung", "hartes Exsudat"), "places": ("nasal",)}
    assert lexicon.all_terms() == ["Drusen", "Blutung", "hartes Exsudat", "nasal"]
    assert lexicon.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert build_tagger(EntityConfig(lexicon=str(path)))("Harte Exsudate, Blutung") == [(16, 23)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name: [", "is not valid yaml"),
        ("- drusen", "must hold keys and values, found ['drusen']"),
        ("name: a\nname: b", "the key 'name' is given twice"),
        ({**MINIMAL, "term": []}, "unknown key term; do you mean terms?"),
        ({key: MINIMAL[key] for key in MINIMAL if key != "sources"}, "has no key sources; add it"),
        ({**MINIMAL, "version": 1}, "version: 1 is no text; write it in quotes"),
        ({**MINIMAL, "terms": ["drusen"]}, "terms: must hold keys and values, found ['drusen']"),
        ({**MINIMAL, "terms": {"a": "drusen"}}, "terms.a: must be a list of terms, found 'drusen'; write `- `"),
        ({**MINIMAL, "terms": {"a": [["no", False]]}}, "terms.a: False is no text; write it in quotes"),
        ({**MINIMAL, "terms": {"a": [" "]}}, "terms.a: is empty"),
        ({**MINIMAL, "terms": {"a": ["--"]}}, "terms.a: '--' has neither letter nor digit; take it out"),
        ({**MINIMAL, "terms": {"a": []}}, "terms holds no term, so no text would have an entity"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, content, said):
    path = written(tmp_path, content)
    with pytest.raises(UserError) as caught:
        read_lexicon(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_an_unknown_lexicon_is_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.entities\.lexicon = retnia: not known; do you mean retina\? chest, "):
        read_lexicon("retnia")
    with pytest.raises(UserError, match=r"data\.entities\.lexicon = .*none\.yaml: no such file; .*docs/text\.md"):
        read_lexicon(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(("name", "at_least"), [("retina", 250), ("chest", 200)])
def test_shipped_lexicons_are_broad_and_say_nothing_twice(name, at_least):
    lexicon = read_lexicon(name)
    assert (lexicon.name, lexicon.language, lexicon.licence) == (name, "en", "CC0-1.0")
    counts = Counter(" ".join(term.replace("-", " ").split()).casefold() for term in lexicon.all_terms())
    assert len(counts) >= at_least
    assert [term for term, count in counts.items() if count > 1] == []


def test_lexicons_are_installed_with_the_package():
    assert sorted(path.name for path in LEXICONS.iterdir()) == ["chest.yaml", "retina.yaml"]
