"""The command `text-tower`: a small, randomly initialised BERT and its vocabulary, for work without a download."""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.readers.texts import PACK
from data_prep.shards import open_shards
from data_prep.writer import replace_folder
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.errors import UserError

_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "text-tower",
        help="make a small random text encoder from the texts of paired shards",
        description="Train a WordPiece vocabulary on the texts of paired shards, in the wordings that training draws, "
        "and save it with a randomly initialised BERT. Give the folder as text_encoder.name: nothing is downloaded. "
        "For trials, not for results.",
    )
    parser.add_argument(
        "--shards", type=Path, required=True, nargs="+", metavar="DIR", help="paired shards, read whole"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--width", type=int, default=128, help="hidden size (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--heads", type=int, default=2, help="attention heads (default: %(default)s)")
    parser.add_argument("--vocab", type=int, default=2000, help="largest number of tokens (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=17, help="of the weights (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier text tower in --out")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build the text tower as the command line says; return the exit status."""
    if min(args.width, args.layers, args.heads) < 1 or args.width % args.heads:
        raise UserError(
            f"--width {args.width} --layers {args.layers} --heads {args.heads}: give numbers from 1, "
            "the width a multiple of the heads"
        )
    if args.vocab < 100:
        raise UserError(f"--vocab {args.vocab}: give at least 100 tokens")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        if not args.overwrite:
            raise UserError(f"--out {args.out}: exists; choose another folder, or replace it with --overwrite")
        if not (args.out / "tokenizer_config.json").is_file():
            raise UserError(f"--out {args.out}: is no earlier text tower; remove it yourself")
    texts = sorted({text for folder in args.shards for text in read_texts(folder)})
    aside = args.out.absolute().with_name(args.out.absolute().name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    tokens = build(texts, aside, args.width, args.layers, args.heads, args.vocab, args.seed)
    replace_folder(aside, args.out)
    print(f"text tower written to {args.out}: {tokens} tokens from {len(texts)} distinct texts")
    return 0


def read_texts(folder: Path) -> Iterator[str]:
    """Yield all texts that training may draw from the paired shards in `folder`, in their order.

    Raises:
        UserError: The folder holds no shards, or shards without texts.
    """
    pack = read_pack(PACK)
    index = folder / "index.json"
    if not index.is_file():
        splits = sorted(path.parent.name for path in folder.glob("*/index.json"))
        remedy = f"give one of its splits: {', '.join(splits)}" if splits else "write them with the command manifest"
        raise UserError(f"--shards {folder}: holds no index.json; {remedy}")
    for reader in open_shards(folder, key=f"--shards {folder}"):
        if not {"texts", "text_kinds"} <= set(reader.column_names):
            raise UserError(f"--shards {folder}: has no columns texts and text_kinds; give paired shards")
        for number in range(len(reader)):
            record = reader[number]
            for text, kind in zip(record["texts"], record["text_kinds"], strict=True):
                yield from pack.prompts(text, kind)


def build(texts: list[str], folder: Path, width: int, layers: int, heads: int, vocab: int, seed: int) -> int:
    """Save a BertModel and its BertTokenizerFast in `folder`; the same arguments give the same files.

    Args:
        texts: What the vocabulary is trained on.
        folder: Created; receives config.json, model.safetensors and the tokenizer's files.
        width: Hidden size; the feed-forward layers have four times it.
        layers: Number of transformer blocks.
        heads: Attention heads of each.
        vocab: Largest size of the vocabulary.
        seed: Of the weights.

    Returns:
        Size of the vocabulary.
    """
    import torch
    from tokenizers.implementations import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    trainer = BertWordPieceTokenizer(lowercase=True)
    # The trainer numbers the inner letters (##a) as its hash maps yield them, and breaks ties between pieces by those
    # numbers (tokenizers 0.21): another vocabulary in every process, unless they are numbered before.
    assert trainer.normalizer is not None
    normal = [trainer.normalizer.normalize_str(text) for text in texts]
    letters = sorted({letter for text in normal for letter in text if not letter.isspace()})
    trainer.train_from_iterator(
        iter(texts),
        vocab_size=vocab,
        min_frequency=1,
        special_tokens=[*_TOKENS, *letters, *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    folder.mkdir(parents=True)
    trainer.save_model(str(folder))
    config = BertConfig(
        vocab_size=trainer.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=config.max_position_embeddings)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return config.vocab_size
