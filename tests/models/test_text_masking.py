import torch

from maskedclip_composer.models.text_masking import mask_entities

MASK = 99
# [CLS] a ##a b c ##c d [SEP] [PAD] [PAD]: four words, of which the last two are one entity and b another
WORD = [-1, 0, 0, 1, 2, 2, 3, -1, -1, -1]
ENTITY = [-1, -1, -1, 0, 1, 1, 1, -1, -1, -1]
NONE = [-1] * 10


def plain_rule(word, entity, noise, entity_ratio: float, word_ratio: float) -> list[bool]:
    """The rule for one text, a token at a time."""
    spans, ratio = (entity, entity_ratio) if any(number >= 0 for number in entity) else (word, word_ratio)
    return [number >= 0 and noise[spans.index(number)] < ratio for number in spans]


def mask(word, entity, noise, entity_ratio: float = 0.5, word_ratio: float = 0.15):
    ids = torch.arange(len(word[0])).expand(len(word), -1)
    masked = mask_entities(
        ids,
        torch.tensor(word),
        torch.tensor(entity),
        torch.as_tensor(noise),
        mask_token_id=MASK,
        entity_ratio=entity_ratio,
        word_ratio=word_ratio,
    )
    assert torch.equal(masked.text_ids, torch.where(masked.hidden, MASK, ids))
    return masked.hidden


def drawn(texts: int) -> tuple[list, list]:
    """Random words of one to three tokens between [CLS] and [SEP]; every third text is without an entity."""
    words, entities = [], []
    for text in range(texts):
        word, entity, spans = [-1], [-1], 0
        for number in range(int(torch.randint(1, 5, ()))):
            length = int(torch.randint(1, 4, ()))
            named = text % 3 > 0 and bool(torch.rand(()) < 0.6)
            word += [number] * length
            entity += [spans if named else -1] * length
            spans += named
        padding = 16 - len(word)
        words.append(word + [-1] * padding)
        entities.append(entity + [-1] * padding)
    return words, entities


def test_it_is_the_rule_told_token_by_token():
    word, entity = drawn(200)
    noise = torch.rand(200, 16)
    hidden = mask(word, entity, noise)
    for row in range(200):
        assert hidden[row].tolist() == plain_rule(word[row], entity[row], noise[row].tolist(), 0.5, 0.15)


def test_only_entities_are_hidden_and_always_whole():
    hidden = mask([WORD] * 2, [ENTITY] * 2, [[0.9] * 4 + [0.1] + [0.9] * 5, [0.1] * 4 + [0.9] + [0.1] * 5])
    assert hidden[0].nonzero().flatten().tolist() == [4, 5, 6]  # the draw of a span is that of its first token
    assert hidden[1].nonzero().flatten().tolist() == [3]


def test_a_text_without_entity_loses_whole_words():
    hidden = mask([WORD], [NONE], [[0.0] + [0.1, 0.9] + [0.2] + [0.14, 0.9] + [0.9] * 4])
    assert hidden[0].nonzero().flatten().tolist() == [1, 2, 4, 5]


def test_only_which_numbers_are_equal_matters():
    """A tokenizer that cuts long texts at their start keeps words of high numbers."""
    noise = torch.rand(50, 10)
    far = [[number * 1000 + 7 if number >= 0 else -1 for number in numbers] for numbers in (WORD, ENTITY)]
    assert torch.equal(mask([far[0]] * 50, [far[1]] * 50, noise), mask([WORD] * 50, [ENTITY] * 50, noise))
    assert torch.equal(mask([far[0]] * 50, [NONE] * 50, noise), mask([WORD] * 50, [NONE] * 50, noise))


def test_special_tokens_and_padding_stay():
    for entity in (ENTITY, NONE):
        hidden = mask([WORD], [entity], [[0.0] * 10], entity_ratio=1.0, word_ratio=1.0)
        assert hidden[0].tolist() == [number >= 0 for number in (ENTITY if entity is ENTITY else WORD)]
    assert not mask([NONE], [NONE], [[0.0] * 10]).any()  # a text of no word at all


def test_the_shares_are_the_chances():
    noise = torch.rand(4000, 10)
    spans = mask([WORD] * 4000, [ENTITY] * 4000, noise)[:, [3, 4]].float().mean()
    words = mask([WORD] * 4000, [NONE] * 4000, noise)[:, [1, 3, 4, 6]].float().mean()
    assert abs(spans - 0.5) < 0.03  # five standard deviations
    assert abs(words - 0.15) < 0.015
