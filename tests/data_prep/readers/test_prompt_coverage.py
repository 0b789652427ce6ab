"""What the readers write and what the packs of prompts say are the same categories."""

import pytest

from data_prep.fixtures.command import write
from data_prep.readers.catalogue import DATASETS
from data_prep.readers.read import read
from data_prep.readers.substitutes_findings import BRSET_FINDINGS, RFMID_FINDINGS
from data_prep.readers.texts import class_name, finding, sentence
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.schema import label_id

PACK = read_pack("retina-en")
LABELLINGS = [
    (name, target, labelling.classes)
    for name, dataset in DATASETS.items()
    for target, labelling in dataset.targets.items()
    if labelling.classes is not None
]
DOWNSTREAM = [entry for entry in LABELLINGS if DATASETS[entry[0]].role == "downstream"]


@pytest.mark.parametrize(("name", "target", "classes"), LABELLINGS)
def test_every_class_is_a_category_under_its_own_name(name, target, classes):
    for category in classes.values():
        assert category in PACK.categories
        assert PACK.canonical(category) == category


@pytest.mark.parametrize("findings", [BRSET_FINDINGS, RFMID_FINDINGS])
def test_every_finding_is_in_the_pack(findings):
    assert [name for name in findings.values() if PACK.canonical(name) not in PACK.categories] == []


@pytest.mark.parametrize(("name", "target", "classes"), DOWNSTREAM)
def test_zero_shot_classes_are_those_of_the_reader(name, target, classes):
    assert PACK.zero_shot[name][target] == dict(classes)
    prompts = PACK.class_prompts(name, target)
    assert list(prompts) == list(classes)
    texts = [text for of_class in prompts.values() for text in of_class]
    assert len(set(texts)) == len(texts)  # a prompt of two classes tells them not apart


def test_zero_shot_knows_the_downstream_sets_and_their_first_labelling():
    known = {name: list(targets) for name, targets in PACK.zero_shot.items()}
    assert known == {name: list(d.targets) for name, d in DATASETS.items() if d.role == "downstream"}


@pytest.mark.parametrize(
    ("keyword", "category"),
    [
        ("moderate non proliferative retinopathy", "moderate non-proliferative diabetic retinopathy"),
        ("mild nonproliferative retinopathy", "mild non-proliferative diabetic retinopathy"),
        ("severe nonproliferative retinopathy", "severe non-proliferative diabetic retinopathy"),
        ("proliferative diabetic retinopathy", "proliferative diabetic retinopathy"),
        ("normal fundus", "normal fundus"),
        ("glaucoma", "glaucoma"),
        ("suspected glaucoma", "suspected glaucoma"),
        ("macular epiretinal membrane", "epiretinal membrane"),
        ("refractive media opacity", "media haze"),
        ("laser spot", "laser spots"),
        ("myelinated nerve fibers", "myelinated nerve fibres"),
        ("optic disc edema", "optic disc oedema"),
        ("old branch retinal vein occlusion", "branch retinal vein occlusion"),
    ],
)
def test_keywords_of_odir_meet_the_classes_of_other_sets(keyword, category):
    assert finding(keyword) == (keyword, category, "finding")
    assert label_id(finding(keyword).category) == label_id(class_name(category).category)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")

    def of(name):
        return read(DATASETS[name], write(name, folder / name).resolve(), kind="paired").rows

    return of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("eyepacs", "category"),
        ("airogs", "category"),
        ("jsiec", "category"),
        ("brset", "category"),
        ("rfmid", "category"),
        ("grape", "category"),
        ("class-folders", "category"),
        ("odir5k", "finding"),
        ("stare", "sentence"),
        ("deepeyenet", "sentence"),
        ("mm-retinal", "sentence"),
    ],
)
def test_kinds_of_the_texts(rows, name, kind):
    found = rows(name)
    assert found
    for row in found:
        assert row.kinds == (kind,) * len(row.texts)
        assert len(row.labels) == len(row.texts)


def test_a_set_of_labels_has_no_kinds(rows, tmp_path):
    assert {row.kinds for row in read(DATASETS["idrid"], write("idrid", tmp_path).resolve()).rows} == {()}


def test_the_same_disease_has_the_same_category_in_every_set(rows):
    odir, rfmid, brset = (
        {label for row in rows(name) for label in row.labels} for name in ("odir5k", "rfmid", "brset")
    )
    assert {"epiretinal membrane", "drusen", "normal fundus", "diabetic retinopathy"} <= odir
    assert {"diabetic retinopathy", "normal fundus", "large optic cup", "vessel tortuosity", "media haze"} <= rfmid
    assert {"normal fundus", "diabetic retinopathy", "macular oedema"} <= brset
    assert {"open-angle glaucoma", "angle-closure glaucoma"} == {row.labels[0] for row in rows("grape")}
    assert {row.labels[0] for row in rows("class-folders")} == {"drusen", "normal fundus"}
    stare = {text: label for row in rows("stare") for text, label in zip(row.texts, row.labels, strict=True)}
    assert stare["Normal"] == "normal fundus"
    unlisted = 'hypertensuve retinopathy OR "copper wire" arteries'
    assert stare[unlisted] == unlisted.casefold()


def test_texts_that_name_no_category_are_their_own():
    assert sentence("Case 4:  Two  Drusen").category == "case 4: two drusen"
