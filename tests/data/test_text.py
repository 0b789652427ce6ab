from collections import Counter

import numpy as np
import pytest
import torch

from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.prompts import PromptConfig
from maskedclip_composer.data.schema import label_id
from maskedclip_composer.data.text import DrawnText, TextSampler, collate_texts
from maskedclip_composer.data.tokenisation import Tokenisation
from maskedclip_composer.errors import UserError

RECORD = {
    "texts": ["a photograph of glaucoma", "case 4"],
    "labels": ["glaucoma", ""],
    "text_kinds": ["sentence", "sentence"],
}
PACK = read_pack("retina-en")


def draw(sampler, sample_id, seed, record=None):
    return sampler(record or RECORD, sample_id, np.random.default_rng(seed), name="data.paired sample 3 (TOY: 3.jpg)")


def test_draws_every_text_equally_often_with_its_own_label(tokenizer):
    sampler = TextSampler(Tokenisation(tokenizer, 16), PACK, label="category")
    drawn = [draw(sampler, 3, seed) for seed in range(400)]
    counts = Counter((item.text, item.label) for item in drawn)
    assert set(counts) == {("a photograph of glaucoma", label_id("glaucoma")), ("case 4", -4)}
    assert min(counts.values()) > 160  # 200 +- 4 standard deviations


def test_unique_mode_makes_only_the_same_image_a_positive(tokenizer):
    sampler = TextSampler(Tokenisation(tokenizer, 16), PACK, label="unique")
    labels = {sample_id: {draw(sampler, sample_id, seed).label for seed in range(5)} for sample_id in range(50)}
    assert all(len(found) == 1 for found in labels.values())
    assert len(set.union(*labels.values())) == 50
    assert all(label < 0 <= label_id(name) for found in labels.values() for label in found for name in ("", "x"))


def test_each_distinct_text_is_tokenised_once(tokenizer):
    calls = Counter()

    class Counting:
        def __call__(self, text, **options):
            calls[text] += 1
            return tokenizer(text, **options)

    sampler = TextSampler(Tokenisation(Counting(), 16), PACK, label="category")
    for seed in range(20):
        draw(sampler, 3, seed)
    assert calls == {"a photograph of glaucoma": 1, "case 4": 1}


def test_long_texts_are_cut_and_keep_their_end_token(tokenizer):
    record = {"texts": ["case " * 50], "labels": [""], "text_kinds": ["sentence"]}
    tokens = draw(TextSampler(Tokenisation(tokenizer, 9), PACK, label="category"), 0, 0, record).tokens
    assert len(tokens) == 9
    assert tokens[-1] == tokenizer.sep_token_id


@pytest.mark.parametrize(
    ("texts", "labels", "kinds"),
    [
        ([], [], []),
        (["a", "b"], ["x"], ["sentence", "sentence"]),
        (["a", "b"], ["x", "y"], ["sentence"]),
        (["a"], ["x"], ["caption"]),
    ],
)
def test_a_record_without_matching_texts_labels_and_kinds_is_named(tokenizer, texts, labels, kinds):
    record = {"texts": texts, "labels": labels, "text_kinds": kinds}
    with pytest.raises(UserError) as caught:
        draw(TextSampler(Tokenisation(tokenizer, 9), PACK, label="category"), 0, 0, record)
    said = f"3.jpg): {len(texts)} texts, {len(labels)} labels and the kinds {kinds}; "
    assert said in str(caught.value)
    assert "one kind (category, finding, sentence) per text; prepare the set again" in str(caught.value)


MIXED = {
    "texts": ["glaucoma", "epiretinal membrane over the macula", "An eye of 1998."],
    "labels": ["glaucoma", "epiretinal membrane", ""],
    "text_kinds": ["category", "finding", "sentence"],
}


def test_the_label_is_the_category_whatever_stands_for_it(tokenizer):
    sampler = TextSampler(Tokenisation(tokenizer, 32), PACK, label="category")
    found: dict[int, Counter] = {}
    for seed in range(3000):
        item = draw(sampler, 3, seed, MIXED)
        found.setdefault(item.label, Counter())[item.text] += 1
    category, finding, sentence = (
        found[label] for label in (label_id("glaucoma"), label_id("epiretinal membrane"), -4)
    )
    assert set(category) == set(PACK.prompts("glaucoma", "category"))
    assert set(finding) == set(PACK.prompts("epiretinal membrane over the macula", "finding"))
    assert set(sentence) == {"An eye of 1998."}
    for texts in (category, finding, sentence):
        assert abs(texts.total() - 1000) < 110  # 4.3 standard deviations


def test_the_same_access_draws_the_same_text(tokenizer):
    first, second = (TextSampler(Tokenisation(tokenizer, 32), PACK, label="category") for _ in range(2))
    for seed in range(30):
        one, other = draw(first, 3, seed, MIXED), draw(second, 3, seed, MIXED)
        assert (one.text, one.label, one.tokens.tolist()) == (other.text, other.label, other.tokens.tolist())


def test_expert_knowledge_off_leaves_the_names(tokenizer):
    pack = PromptConfig(expert=False, template="{category}").applied_to(PACK)
    sampler = TextSampler(Tokenisation(tokenizer, 32), pack, label="category")
    assert {draw(sampler, 3, seed, MIXED).text for seed in range(60)} == set(MIXED["texts"])


def drawn(text, length, label=0):
    return DrawnText(text=text, tokens=np.arange(1, length + 1, dtype=np.int32), label=label)


def test_collated_texts_give_every_row_back(tokenizer):
    sampler = TextSampler(Tokenisation(tokenizer, 32), PACK, label="category")
    items = [draw(sampler, 3, seed) for seed in range(9)]
    batch = collate_texts(items, max_tokens=32, pad_id=tokenizer.pad_token_id)
    assert len(batch["text_ids"]) == 2
    for row, item in enumerate(items):
        ids = batch["text_ids"][batch["text_index"][row]]
        assert tokenizer.decode(ids, skip_special_tokens=True) == item.text
        assert batch["text_mask"][batch["text_index"][row]].sum() == len(item.tokens)
        assert batch["label"][row] == item.label
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


@pytest.mark.parametrize(
    ("longest", "limit", "length"), [(5, 77, 8), (8, 77, 8), (9, 77, 16), (77, 77, 77), (75, 77, 77)]
)
def test_length_is_rounded_up_to_eight_but_not_past_the_limit(longest, limit, length):
    batch = collate_texts([drawn("long", longest), drawn("short", 3)], max_tokens=limit, pad_id=99)
    assert batch["text_ids"].shape == (2, length)
    assert batch["text_ids"][1].tolist() == [1, 2, 3] + [99] * (length - 3)
    assert batch["text_mask"].sum(1).tolist() == [longest, 3]


def test_every_text_is_encoded_once_or_every_pairs_text_padded_to_the_limit(tokenizer):
    tokenise = Tokenisation(tokenizer, 24, tagger=lambda text: [(2, 12)], max_sentences=2)
    sampler = TextSampler(tokenise, PACK, label="category", noise_length=24)
    items = [draw(sampler, 3, seed) for seed in range(9)]
    one, other = (
        collate_texts(items, max_tokens=24, pad_id=tokenizer.pad_token_id, distinct=distinct)
        for distinct in (True, False)
    )
    assert other["text_index"].tolist() == list(range(9))
    assert other.keys() == one.keys()
    assert torch.equal(other["label"], one["label"])
    assert {name: tuple(values.shape) for name, values in other.items() if name != "text_index"} == {
        name: (9, 24) if name != "label" else (9,) for name in one if name != "text_index"
    }
    length = one["text_ids"].shape[1]
    assert length < 24
    assert len(one["text_ids"]) == 2
    for name, fill in (("ids", tokenizer.pad_token_id), ("mask", 0), ("word", -1), ("entity", -1), ("sentence", -1)):
        rows = one[f"text_{name}"][one["text_index"]]
        assert torch.equal(other[f"text_{name}"][:, :length], rows)
        assert (other[f"text_{name}"][:, length:] == fill).all()
    assert torch.equal(other["text_noise"][:, :length], one["text_noise"])


REPORT = {
    "texts": ["Optic disc pale. Macula flat ", "drusen", "glaucoma", "Any scar?"],
    "labels": ["", "drusen", "glaucoma", ""],
    "text_kinds": ["sentence", "finding", "category", "sentence"],
}


def test_joined_texts_are_the_sentences_of_one_report(tokenizer):
    bare = PromptConfig(expert=False, template="{category} seen").applied_to(PACK)
    sampler = TextSampler(Tokenisation(tokenizer, 64), bare, label="unique", join_texts=True)
    item = draw(sampler, 5, 0, REPORT)
    assert item.text == "Optic disc pale. Macula flat. drusen seen. glaucoma seen. Any scar?"
    assert item.label == -6
    worded = TextSampler(Tokenisation(tokenizer, 64), PACK, label="unique", join_texts=True)
    assert len({draw(worded, 5, seed, REPORT).text for seed in range(20)}) > 5


def test_noise_is_drawn_after_everything_else(tokenizer):
    plain = TextSampler(Tokenisation(tokenizer, 32), PACK, label="category")
    noisy = TextSampler(Tokenisation(tokenizer, 32), PACK, label="category", noise_length=32)
    for seed in range(20):
        one, other = draw(plain, 3, seed, MIXED), draw(noisy, 3, seed, MIXED)
        assert (one.text, one.label, one.noise) == (other.text, other.label, None)
        assert other.noise is not None
        assert (other.noise.shape, other.noise.dtype) == ((32,), np.float32)
        again = np.random.default_rng(seed)
        plain(MIXED, 3, again, name="")
        assert np.array_equal(other.noise, again.random(32, dtype=np.float32))


def test_collated_units_and_noise_lie_beside_their_tokens(tokenizer):
    tokenise = Tokenisation(tokenizer, 24, tagger=lambda text: [(2, 12)], max_sentences=2)
    sampler = TextSampler(tokenise, PACK, label="category", noise_length=24)
    items = [draw(sampler, 3, seed) for seed in range(9)]
    batch = collate_texts(items, max_tokens=24, pad_id=tokenizer.pad_token_id)
    rows, tokens = batch["text_ids"].shape
    assert batch["text_noise"].shape == (9, tokens)
    assert batch["text_noise"].dtype == torch.float32
    for row, item in enumerate(items):
        assert np.array_equal(batch["text_noise"][row].numpy(), item.noise[:tokens])
        for unit in ("word", "entity", "sentence"):
            numbers = batch[f"text_{unit}"]
            assert (numbers.shape, numbers.dtype) == ((rows, tokens), torch.int64)
            numbers = numbers[batch["text_index"][row]].tolist()
            assert numbers == item.units[unit].tolist() + [-1] * (tokens - len(item.tokens))
