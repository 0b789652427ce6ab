"""Entities, sentences and joined texts, from the config to the batch."""

import re

import torch

from maskedclip_composer.data.entities import EntityConfig
from maskedclip_composer.data.loader import data_manifest
from maskedclip_composer.data.sentences import SentenceConfig
from tests.data.test_loader import assert_equal, build, data_config

UNITS = {"text_word", "text_entity", "text_sentence", "text_noise"}


def test_units_change_nothing_else_of_a_batch(sets, tokenizer):
    plain = list(build(sets, tokenizer).dataloader)
    rich = list(build(sets, tokenizer, entities=EntityConfig(), sentences=SentenceConfig()).dataloader)
    for batch in rich:
        part = batch["paired"]
        assert part.keys() >= UNITS
        assert part["text_noise"].shape == (4, part["text_ids"].shape[1])
        assert 0 <= part["text_noise"].min() < part["text_noise"].max() < 1
        inside = ~torch.isin(part["text_ids"], torch.tensor(tokenizer.all_special_ids)) & (part["text_mask"] > 0)
        assert torch.equal(part["text_word"] >= 0, inside)
        assert torch.equal(part["text_sentence"] >= 0, inside)
        for name in UNITS:
            del part[name]
    assert_equal(plain, rich)


def test_entities_of_the_batch_are_the_terms_of_its_texts(sets, tokenizer):
    found = set()
    for batch in build(sets, tokenizer, entities=EntityConfig()).dataloader:
        part = batch["paired"]
        assert not part.keys() & {"text_sentence"}
        for ids, entity in zip(part["text_ids"], part["text_entity"], strict=True):
            found |= {tokenizer.decode(ids[entity == number]) for number in range(int(entity.max()) + 1)}
    assert found == {"normal", "glaucoma", "diabetic retinopathy"}


def test_a_joined_report_has_a_sentence_for_each_text(sets, tokenizer):
    spec = build(sets, tokenizer, join_texts=True, label="unique", sentences=SentenceConfig(), max_tokens=32)
    for batch in spec.dataloader:
        part = batch["paired"]
        assert not part.keys() & {"text_word", "text_entity", "text_noise"}
        assert part["label"].tolist() == [-1 - number for number in part["sample_id"].tolist()]
        for row, number in enumerate(part["sample_id"].tolist()):
            at = part["text_index"][row]
            ids, sentence = part["text_ids"][at], part["text_sentence"][at]
            first, second = (tokenizer.decode(ids[sentence == one], skip_special_tokens=False) for one in (0, 1))
            assert re.fullmatch(r"a photograph of [a-z ]+(\[UNK\]|\.)", first.strip())
            assert second.startswith(f"case {number}")
            assert sentence.max() == 1


def test_units_are_bit_equal_with_workers(sets, tokenizer):
    keys = {"entities": EntityConfig(), "sentences": SentenceConfig(), "join_texts": True, "label": "unique"}
    alone, with_workers = (list(build(sets, tokenizer, num_workers=number, **keys).dataloader) for number in (0, 2))
    assert_equal(alone, with_workers)


def test_the_manifest_names_the_lexicon(sets):
    manifest = data_manifest(data_config(sets, entities=EntityConfig(lexicon="chest")))["entities"]
    assert (manifest["tagger"], manifest["lexicon"], len(str(manifest["sha256"]))) == ("lexicon", "chest", 64)
    model = EntityConfig(tagger="scispacy", model="en_ner_bc5cdr_md")
    assert data_manifest(data_config(sets, entities=model))["entities"] == {
        "tagger": "scispacy",
        "model": "en_ner_bc5cdr_md",
    }
