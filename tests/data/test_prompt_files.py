import hashlib
import re
from pathlib import Path

import pytest
import yaml

from maskedclip_composer.data.content_files import load_content
from maskedclip_composer.data.prompt_files import PACKS, read_pack
from maskedclip_composer.data.prompts import fold
from maskedclip_composer.errors import UserError

SHIPPED = sorted(path.stem for path in PACKS.glob("*.yaml"))
MINIMAL = {
    "name": "mine",
    "version": "1",
    "language": "en",
    "licence": "CC0-1.0",
    "sources": [],
    "templates": ["A fundus photograph of {category}"],
    "attributes": [],
    "categories": {"glaucoma": {"descriptions": ["a thin rim"], "synonyms": ["OAG"]}, "drusen": {}},
}


def written(folder, content):
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def complaint(folder, content):
    path = written(folder, content)
    with pytest.raises(UserError) as caught:
        read_pack(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def changed(**keys):
    return {**MINIMAL, **keys}


def with_categories(**categories):
    return changed(categories=MINIMAL["categories"] | categories)


def test_a_minimal_pack_is_read_as_written(tmp_path):
    path = written(tmp_path, MINIMAL)
    pack = read_pack(str(path))
    assert (pack.name, pack.version, pack.attributes, pack.zero_shot) == ("mine", "1", ("",), {})
    assert pack.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert pack.prompts("oag", "category") == [
        "A fundus photograph of glaucoma",
        "A fundus photograph of a thin rim",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(tempaltes=[]), "unknown key tempaltes; do you mean templates?"),
        (changed(colour=1), "unknown key colour; known keys there: name, version, "),
        ({key: value for key, value in MINIMAL.items() if key != "licence"}, "has no key licence; add it"),
        (changed(version=1), "version: 1 is no text; write it in quotes"),
        (changed(templates=[]), "templates is empty; write one"),
        (changed(templates="A {category}"), "templates: must be a list of texts"),
        (changed(templates=["A photograph"]), "templates: 'A photograph' must name {category} once"),
        (changed(templates=["A {colour} {category}"]), "templates: 'A {colour} {category}' {colour} is not known"),
        (changed(sources=[""]), "sources: is empty; write something, or take it out"),
        (changed(categories=["drusen"]), "categories: must hold keys and values"),
        (with_categories(amd={"description": ["x"]}), "categories.amd: unknown key description; do you mean desc"),
        (with_categories(amd={"descriptions": [" "]}), "categories.amd.descriptions: is empty"),
        (with_categories(amd={"name": ""}), "categories.amd.name: is empty"),
        (with_categories(amd={"synonyms": [False]}), "categories.amd.synonyms: False is no text; write it in quotes"),
        (with_categories(amd=None), "categories.amd: must hold keys and values, found None"),
        (
            with_categories(amd={"synonyms": ["oag"]}),
            "categories.amd: 'oag' is given twice, first in categories.glaucoma; take one of them out",
        ),
        (with_categories(amd={"synonyms": ["Drusen"]}), "categories.amd: 'drusen' is given twice, first in"),
        (with_categories(Glaucoma={}), "categories.Glaucoma: 'glaucoma' is given twice"),
        (with_categories(amd={"descriptions": ["A thin  rim"]}), "categories.amd: 'a thin rim' is given twice"),
        (with_categories(amd={"synonyms": ["AMD"]}), "categories.amd: 'amd' is given twice, first in categories.amd"),
        (
            changed(zero_shot={"toy": {"disease": {"0": "glaucom"}}}),
            "zero_shot.toy.disease.0: 'glaucom' is not one of `categories`; do you mean 'glaucoma'?",
        ),
        (
            changed(zero_shot={"toy": {"disease": {0: "glaucoma"}}}),
            "zero_shot.toy.disease: key 0: 0 is no text; write it in quotes",
        ),
        ("a: [1", "is not valid yaml"),
        ("- a\n", "must hold keys and values"),
        ("name: a\nname: b\n", "the key 'name' is given twice"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(tmp_path, content, said):
    assert said in complaint(tmp_path, content)


def test_an_unknown_pack_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(UserError, match=r"retina-eng: not known; do you mean retina-en\? retina-de, retina-en come"):
        read_pack("retina-eng")
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        read_pack(str(tmp_path / "none.yaml"))


def test_the_pack_of_the_documentation_is_sound(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", Path("docs/prompts.md").read_text(), re.DOTALL)
    pack = read_pack(str(written(tmp_path, block)))
    assert len(pack.class_prompts("origa")["1"]) == 9  # three wordings; one template is without attribute


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_pack_is_sound(name):
    pack = read_pack(name)
    assert (pack.name, pack.licence) == (name, "CC0-1.0")
    assert re.fullmatch(r"[a-z]{2}", pack.language)
    assert any("Wilkinson" in source for source in pack.sources)
    for key in pack.categories:
        assert pack.canonical(key) == key
        assert all(len(prompt) < 160 for prompt in pack.prompts(key, "category"))


def test_a_description_is_never_also_a_name_of_the_english_pack():
    """A keyword that reads like a description of another category would change its category unnoticed."""
    pack = read_pack("retina-en")
    for key, category in pack.categories.items():
        for description in category.descriptions:
            assert pack.canonical(description) == fold(description), (key, description)


def test_every_category_of_the_german_pack_is_one_of_the_english():
    german, english = read_pack("retina-de"), read_pack("retina-en")
    assert set(german.categories) <= set(english.categories)
    for dataset, targets in german.zero_shot.items():
        assert targets == english.zero_shot[dataset]
    assert "Fundusfoto: Glaukom" in german.class_prompts("origa")["1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 10_000, "nests too deeply"),
        ("a: 2020-99-99", "is not valid yaml"),
        ("a: !!timestamp x", "is not valid yaml"),
        ("!!python/object/apply:os.abort []", "is not valid yaml"),
        # A list of lists of ... that is 9 to the power of 12 long when it is written out.
        (
            "- &x0 [1]\n" + "".join(f"- &x{i} [{','.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 13)),
            "must hold keys and values",
        ),
    ],
)
def test_a_yaml_that_is_an_attack_is_one_message(tmp_path, content, said):
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=f"p.yaml: {said}"):
        load_content(path)
