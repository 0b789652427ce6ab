import re

import numpy as np
import pytest

from data_prep.phantom.case import Case, sample_cases
from data_prep.phantom.diagnoses import CATARACT, DIAGNOSES, GLAUCOMA, MODERATE, VEIN_OCCLUSION, describe_lesions
from data_prep.phantom.report_text import write_report
from maskedclip_composer.data.entities import EntityConfig, build_tagger
from maskedclip_composer.data.sentences import split_sentences

EYES = [[name] for name in DIAGNOSES] + [[MODERATE, GLAUCOMA], [VEIN_OCCLUSION, CATARACT], [CATARACT, GLAUCOMA]]


def report(case: Case, seed: int) -> str:
    return write_report(list(case.diagnoses), list(case.lesions), case.eye, np.random.default_rng(seed))


def cases(names: list[str]) -> list[tuple[Case, str]]:
    """Twelve eyes with these diagnoses, six of them left, and their reports."""
    drawn = [sample_cases(np.random.SeedSequence(seed), {"left": names, "right": names}) for seed in range(6)]
    return [(case, report(case, seed)) for seed, pair in enumerate(drawn) for case in pair]


@pytest.mark.parametrize("names", EYES, ids=" and ".join)
def test_every_sentence_is_true_of_the_drawing(names: list[str]):
    for case, text in cases(names):
        other = "left" if case.eye.side == "right" else "right"
        assert re.search(rf"\b{case.eye.side}\b", text)
        assert not re.search(rf"\b{other}\b", text)
        assert f"ratio {case.eye.cup:.1f}" in text.replace("ratio of about", "ratio")
        assert ("enlarged" in text or "cupping" in text) == (GLAUCOMA in names)
        assert all(describe_lesions(lesions, case.eye) in text for lesions in case.lesions)
        assert bool(re.search("no haemorrhages|No haemorrhages", text)) == (not case.lesions)
        assert ("lens" in text) == (CATARACT in names)
        if "The macula is flat" in text or "No lesion is seen at the macula" in text:
            gaps = [np.hypot(*(lesions.centres - np.array(case.eye.fovea)).T).min() for lesions in case.lesions]
            assert not gaps or min(gaps) > 0.4
        assert text.endswith(f" Impression: {' and '.join(names)}.")


@pytest.mark.parametrize("names", EYES, ids=" and ".join)
def test_a_report_has_four_to_six_sentences_with_an_entity_each(names: list[str]):
    tagger = build_tagger(EntityConfig())
    for _, text in cases(names):
        sentences = [text[begin:end] for begin, end in split_sentences(text)]
        assert 4 <= len(sentences) <= 6
        assert " ".join(sentences) == text
        assert all(tagger(sentence) for sentence in sentences)


def test_wording_varies_and_is_kept_by_its_seed():
    case, _ = cases([MODERATE])[0]
    assert len({report(case, seed) for seed in range(30)}) > 5
    assert report(case, 3) == report(case, 3)


def test_the_centre_is_the_one_of_the_photograph():
    found = {}
    for seed in range(60):
        (case,) = sample_cases(np.random.SeedSequence(seed), {"right": [MODERATE]})
        for centre in re.findall(r"centred on the (\w+)", report(case, seed)):
            found.setdefault(centre, []).append(case.eye.fovea[0])
    assert min(found["macula"]) > max(found["optic"])
