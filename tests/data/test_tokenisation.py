import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from maskedclip_composer.data import tokenisation
from maskedclip_composer.data.entities import EntityConfig, build_tagger
from maskedclip_composer.data.sentences import split_sentences
from maskedclip_composer.data.tokenisation import Tokenisation
from maskedclip_composer.errors import UserError

TEXTS = [
    "moderate non proliferative retinopathy",
    "epiretinal membrane",
    "Colour fundus photograph of the left eye. The optic disc has a cup-to-disc ratio of 0.6, e.g. from glaucoma; "
    "hard exudates superotemporal to the fovea.\nImpression: 1. Moderate NPDR. 2. Suspected glaucoma.",
    "Right eye, centred on the posterior pole. Numerous flame-shaped haemorrhages in the inferior temporal quadrant! "
    "Is there macular œdema? Yes. Impression: branch retinal vein occlusion",
    "Loculated right pleural effusion with basilar opacities, 2.5 cm. No pneumothorax (see Dr. Smith's report).",
]
TAGGER = build_tagger(EntityConfig())


def word_pieces(folder: Path) -> Any:
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    model = BertWordPieceTokenizer(lowercase=True)
    model.train_from_iterator(TEXTS, vocab_size=160, show_progress=False)
    model.save_model(str(folder))
    return BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))


def byte_pairs(folder: Path) -> Any:
    """Without special tokens, and with the space before a word in the word's first token, as GPT-2 has it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    model = ByteLevelBPETokenizer(trim_offsets=False)
    model.train_from_iterator(TEXTS, vocab_size=330, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=model._tokenizer)


@pytest.fixture(scope="module", params=[word_pieces, byte_pairs])
def pieces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return request.param(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def berts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return word_pieces(tmp_path_factory.mktemp("vocabulary"))


def letters(text: str) -> str:
    """Without the spaces, in which decoding differs, and as the vocabulary folds letters."""
    return re.sub(r"\s", "", text).lower()


def units(tokenizer: Any, tokens: tokenisation.Tokens, name: str) -> list[str]:
    """Decode the tokens of each unit in order."""
    numbers = tokens.units[name]
    assert (np.diff(numbers[numbers >= 0]) >= 0).all()
    return [letters(tokenizer.decode(tokens.ids[numbers == number])) for number in np.unique(numbers[numbers >= 0])]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_a_unit_decode_to_its_words(pieces, text):
    tokens = Tokenisation(pieces, 500, tagger=TAGGER, max_sentences=16)(text)
    assert max(np.bincount(tokens.units["word"][tokens.units["word"] >= 0])) > 1  # words of several tokens
    assert units(pieces, tokens, "entity") == [letters(text[begin:end]) for begin, end in TAGGER(text)]
    sentences = [letters(text[begin:end]) for begin, end in split_sentences(text)]
    assert units(pieces, tokens, "sentence") == sentences
    assert "".join(units(pieces, tokens, "word")) == "".join(sentences) == letters(text)
    assert {array.dtype for array in (tokens.ids, *tokens.units.values())} == {np.dtype(np.int32)}
    assert {len(array) for array in tokens.units.values()} == {len(tokens.ids)}


@pytest.mark.parametrize("text", TEXTS)
def test_special_tokens_belong_to_nothing(berts, text):
    tokens = Tokenisation(berts, 500, tagger=TAGGER, max_sentences=16)(text)
    special = np.isin(tokens.ids, berts.all_special_ids)
    assert special[[0, -1]].all()
    for name in ("word", "sentence"):
        assert np.array_equal(tokens.units[name] < 0, special)
    assert (tokens.units["entity"][special] < 0).all()


def test_whole_words_belong_to_an_entity(berts):
    tokens = Tokenisation(berts, 500, tagger=TAGGER)(TEXTS[2])
    for word in range(tokens.units["word"].max() + 1):
        assert len(set(tokens.units["entity"][tokens.units["word"] == word])) == 1


def test_a_cut_text_has_the_units_that_are_left(berts):
    text = TEXTS[3]
    whole, cut = (Tokenisation(berts, length, tagger=TAGGER, max_sentences=16)(text) for length in (500, 20))
    assert len(cut.ids) == 20
    assert cut.ids[-1] == berts.sep_token_id
    for name, numbers in cut.units.items():
        assert np.array_equal(numbers[:-1], whole.units[name][:19])
        assert numbers[-1] == -1


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_what_comes_after_the_last_sentence_belongs_to_it(berts, limit):
    text = TEXTS[3]
    spans = split_sentences(text)
    assert len(spans) == 5
    expected = [*spans[: limit - 1], (spans[limit - 1][0], len(text))]
    tokens = Tokenisation(berts, 500, max_sentences=limit)(text)
    assert units(berts, tokens, "sentence") == [letters(text[begin:end]) for begin, end in expected]


@pytest.mark.parametrize(("text", "sentences"), [("", [-1, -1]), ("0.6", [-1, 0, 0, 0, -1])])
def test_a_text_without_letters_is_one_sentence(berts, text, sentences):
    tokens = Tokenisation(berts, 500, tagger=TAGGER, max_sentences=16)(text)
    assert tokens.units["sentence"].tolist() == sentences
    assert (tokens.units["entity"] == -1).all()


def test_units_are_made_for_those_who_ask(berts):
    assert Tokenisation(berts, 500)("drusen").units == {}
    assert set(Tokenisation(berts, 500, tagger=TAGGER)("drusen").units) == {"word", "entity"}
    assert set(Tokenisation(berts, 500, max_sentences=2)("drusen").units) == {"sentence"}


def test_a_slow_tokenizer_is_refused_only_where_units_are_asked_for():
    slow: Any = SimpleNamespace(is_fast=False)
    Tokenisation(slow, 500)
    with pytest.raises(UserError, match=r"data\.entities and data\.sentences need a fast tokenizer.*remove the keys"):
        Tokenisation(slow, 500, max_sentences=16)


def test_each_text_is_read_once_and_memory_is_bounded(berts, monkeypatch):
    monkeypatch.setattr(tokenisation, "_CACHE_SIZE", 2)
    read: list[str] = []

    def tagger(text):
        read.append(text)
        return []

    tokenise = Tokenisation(berts, 500, tagger=tagger)
    for text in ("drusen", "scar", "drusen", "scar"):
        assert tokenise(text) is tokenise(text)
    assert read == ["drusen", "scar"]
    tokenise("glaucoma")
    tokenise("glaucoma")
    assert read == ["drusen", "scar", "glaucoma"]
    assert len(tokenise._known) <= 2
