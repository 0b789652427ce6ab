"""Small sets of MDS shards, written as data_prep writes them."""

import atexit
import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskedclip_composer.data.schema import COLUMNS

CATEGORIES = ["normal", "glaucoma", "diabetic retinopathy"]


def jpeg(seed: int, width: int = 48, height: int = 40) -> bytes:
    """A smooth random photograph."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def record(kind: str, number: int) -> dict[str, Any]:
    base = {
        "image": jpeg(number),
        "width": 48,
        "height": 40,
        "dataset": "TOY",
        "patient": "",
        "eye": "",
        "split": "train",
        "source": f"{kind}/{number}.jpg",
        "sha256": "",
        "crop": {"status": "none", "box": None},
    }
    if kind == "paired":
        category = CATEGORIES[number % 3]
        base |= {"texts": [f"a photograph of {category}", f"case {number}"], "labels": [category, ""]}
        base["text_kinds"] = ["sentence", "sentence"]
    return base


@pytest.fixture
def quick_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch 2.7 waits this long, by default 5 s, for each worker of an IterableDataset that has raised."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)


@pytest.fixture(autouse=True)
def release_shared_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close Streaming's shared memory, which it keeps until the process ends: each data set opens all earlier ones."""
    from streaming.base.shared.memory import SharedMemory

    opened: list[SharedMemory] = []
    original = SharedMemory.__init__

    def recording(self: SharedMemory, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        opened.append(self)

    monkeypatch.setattr(SharedMemory, "__init__", recording)
    yield
    for memory in opened:
        with contextlib.suppress(BufferError):  # a data set that is still alive
            memory.cleanup()
        atexit.unregister(memory.cleanup)


@pytest.fixture(scope="session")
def write_set() -> Callable[..., Path]:
    from streaming import MDSWriter

    def write(folder: Path, kind: str, samples: int, *, edit: dict[int, dict] | None = None, **options: Any) -> Path:
        settings = {"columns": COLUMNS[kind], "hashes": ["xxh64"], "size_limit": 8_000} | options
        with MDSWriter(out=str(folder), **settings) as writer:
            for number in range(samples):
                full = record(kind, number) | (edit or {}).get(number, {})
                writer.write({column: full[column] for column in settings["columns"]})
        return folder

    return write


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory, write_set: Callable[..., Path]) -> dict[str, Path]:
    """11 paired and 33 unpaired records in several shards each. Read only."""
    root = tmp_path_factory.mktemp("sets")
    return {
        "paired": write_set(root / "paired", "paired", 11),
        "unpaired": write_set(root / "unpaired", "unpaired", 33),
    }


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    model = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    corpus = [f"a photograph of {category}" for category in CATEGORIES] + [f"case {number}" for number in range(50)]
    model.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary = sorted(model.get_vocab(), key=model.token_to_id)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)
