"""Where the training images come from and how one view of each is drawn."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from maskedclip_composer.data.crops import CropConfig
from maskedclip_composer.data.entities import EntityConfig
from maskedclip_composer.data.prompts import PromptConfig
from maskedclip_composer.data.sentences import SentenceConfig
from maskedclip_composer.errors import UserError

CACHE_ROOT = Path("~/.cache/maskedclip_composer")


def wait_before(retry: int) -> float:
    """Return the seconds to wait before the first, second, ... retry of a download."""
    return min(2.0 ** (retry - 1), 60.0)


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """One set of MDS shards.

    A `remote` without a scheme (or with `file://`) is a folder and is read in place, unless `local` names another
    folder to copy its shards to. A URL (`s3://`, `gs://`, `azure://`, `oci://`, ...) is cached in `local`, or in
    `~/.cache/maskedclip_composer/<hash of the URL>`. Two runs cannot use a cache at the same time, nor can two nodes.
    """

    remote: str | None = None
    local: str | None = None
    batch_size: int  # images per step over all ranks
    split: str | None = None  # subfolder of `remote` and `local`

    def location(self) -> tuple[str | None, str]:
        """Return (source to copy shards from or None, folder they are read from), both without the split."""
        if self.remote is None:
            assert self.local is not None  # DataConfig refuses a stream that has neither
            return None, str(_home(self.local))
        source = self.remote.removeprefix("file://")
        if "://" in source:
            digest = hashlib.blake2b(source.encode(), digest_size=8).hexdigest()
            return source, str(_home(self.local or CACHE_ROOT / digest))
        source = str(_home(source))
        if self.local is None or _home(self.local).resolve() == Path(source).resolve():
            return None, source
        return source, str(_home(self.local))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The paired and the unpaired stream, and the augmentation that both share.

    An epoch is one pass over the stream with more steps; the other is shuffled anew and cycled.

    A shard that cannot be fetched, or is damaged, is fetched again `download_retry` times; then the run stops with a
    message that names it, at most `patience` seconds after the first attempt began. One that is read in place and is
    damaged stops the run at once.
    """

    paired: StreamConfig | None = None
    unpaired: StreamConfig | None = None
    image_size: int = 224  # pixels
    min_crop: float = 0.2  # smallest area of a random crop, as a share of the image
    flip: float = 0.5  # probability of a left-right flip
    # exact: every pixel, as PIL has them; scaled: JPEGs only as large as the crop needs, cheaper where they are large.
    decode: Literal["exact", "scaled"] = "exact"
    # category: pairs whose drawn texts have the same category are positives; unique: every image only of itself.
    label: Literal["category", "unique"] = "category"
    prompts: PromptConfig = field(default_factory=PromptConfig)
    max_tokens: int = 77  # longer texts are cut
    join_texts: bool = False  # all texts of an image, as the sentences of one report, in place of one of them
    entities: EntityConfig | None = None  # spans that ent_mlm hides
    sentences: SentenceConfig | None = None  # units that patch_sentence matches with patches
    crops: CropConfig | None = None  # several views of each image, for dinov2
    num_workers: int = 8  # loader processes per rank
    cache_limit: str | None = None  # e.g. "100gb", of both streams together; the coldest shards are deleted first
    shuffle_block_size: int = 262_144  # samples: a sample moves at most about half of this from its shard's place
    # A file that did not arrive intact is fetched again, after 1, 2, 4, ... seconds, at most 60; see `patience`.
    download_retry: int = 5
    # Seconds that one attempt at one file may take. A shard of data_prep has 64 MiB, so that with 240 s each connection
    # (of num_workers x ranks that share the line) must give 280 kB/s. `patience` is to stay below trainer.dist_timeout.
    download_timeout: float = 240.0
    # always: a shard that is there when a run begins is held against its hash before its first use, once in a run;
    # downloads: only what was just fetched. A shuffle block has s = shuffle_block_size x bytes of a sample / 64 MiB
    # shards (262,144 photographs of 100 kB: 391, or 26 GB), of which b samples are in s (1 - (1 - 1/s)^b): a step of
    # 256 is in 188. Some steps later the whole block has been read: at 500 MB/s after 52 s.
    verify: Literal["always", "downloads"] = "always"

    @property
    def patience(self) -> float:
        """Seconds after which a file that cannot be fetched ends the run, at most: by default 1471."""
        return (1 + self.download_retry) * self.download_timeout + sum(
            map(wait_before, range(1, 1 + self.download_retry))
        )

    def streams(self) -> dict[Literal["paired", "unpaired"], StreamConfig]:
        """Return the streams that are present, paired first."""
        present: dict[Literal["paired", "unpaired"], StreamConfig] = {}
        if self.paired is not None:
            present["paired"] = self.paired
        if self.unpaired is not None:
            present["unpaired"] = self.unpaired
        return present

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.join_texts and self.label == "category":
            raise UserError(
                "data.join_texts = true: a report of several texts has no one category; set data.label=unique"
            )
        for key in ("join_texts", "entities", "sentences"):
            if getattr(self, key) and self.paired is None:
                raise UserError(f"data.{key}: is of texts, but data.paired is not given; remove it or add data.paired")
        if self.crops is not None and self.crops.local_size > self.image_size:
            raise UserError(
                f"data.crops.local_size = {self.crops.local_size}: is larger than the global views; "
                f"set it to data.image_size = {self.image_size} or less"
            )
        if self.crops is not None and self.decode == "scaled":
            raise UserError(
                "data.decode = scaled: goes by the size of one crop, and data.crops cuts several of each photograph; "
                "set data.decode=exact or remove data.crops"
            )
        if not self.streams():
            raise UserError("data: no stream is given; set data.paired, data.unpaired or both")
        for name, stream in self.streams().items():
            if stream.remote is None and stream.local is None:
                raise UserError(
                    f"data.{name}: neither remote nor local is given; set data.{name}.remote=<folder or URL>"
                )
            if stream.batch_size <= 0:
                raise UserError(
                    f"data.{name}.batch_size = {stream.batch_size}: must be positive; "
                    f"to train without this stream leave data.{name} out"
                )
            if self.cache_limit is not None and stream.location()[0] is None:
                raise UserError(
                    f"data.cache_limit = {self.cache_limit}: data.{name} is read in place from {stream.location()[1]} "
                    f"and a limit would delete its shards; remove data.cache_limit or set data.{name}.local to a cache"
                )
        folders = [(Path(stream.location()[1]).resolve(), stream.split or "") for stream in self.streams().values()]
        if len(set(folders)) < len(folders):
            raise UserError(
                f"data.unpaired: the same folder as data.paired ({folders[0][0]}); leave data.unpaired out, "
                "because paired images take part in the objectives without text anyway"
            )


def _check_numbers(config: DataConfig) -> None:
    """Raise UserError at the first key whose value is outside its range."""
    rules = (
        ("image_size", config.image_size > 0, "a positive number of pixels"),
        ("min_crop", 0 < config.min_crop <= 1, "above 0 and at most 1, a share of the image's area"),
        ("flip", 0 <= config.flip <= 1, "a probability, 0 to 1"),
        ("label", config.label in ("category", "unique"), "category or unique"),
        ("decode", config.decode in ("exact", "scaled"), "exact or scaled"),
        ("max_tokens", config.max_tokens >= 3, "at least 3: a start, one word piece and an end"),
        ("num_workers", config.num_workers >= 0, "0 (load in the training process) or more"),
        ("shuffle_block_size", config.shuffle_block_size > 0, "a positive number of samples"),
        ("download_retry", config.download_retry >= 0, "0 or more"),
        ("download_timeout", config.download_timeout > 0, "a positive number of seconds"),
        ("verify", config.verify in ("always", "downloads"), "always or downloads"),
    )
    for key, holds, remedy in rules:
        if not holds:
            raise UserError(f"data.{key} = {getattr(config, key)}: must be {remedy}")


def _home(path: str | Path) -> Path:
    """Expand ~ as `Path.expanduser` does, which raises RuntimeError where nobody has that home."""
    return Path(os.path.expanduser(path))
