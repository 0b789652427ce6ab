"""From a DataConfig to the loader that Composer trains from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from composer.core import DataSpec
from torch import Tensor
from torch.utils.data import DataLoader

from maskedclip_composer.data.config import DataConfig
from maskedclip_composer.data.crops import Crops, draw_crops
from maskedclip_composer.data.entities import build_tagger, describe_tagger
from maskedclip_composer.data.joint import JointDataset
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.scaled import scaled_view
from maskedclip_composer.data.streams import open_streams
from maskedclip_composer.data.text import DrawnText, TextSampler, collate_texts
from maskedclip_composer.data.tokenisation import Tokenisation
from maskedclip_composer.data.transforms import decode, random_view
from maskedclip_composer.errors import UserError
from maskedclip_composer.types import Batch

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

# Seconds a step may wait for its batch. Failures are reported long before; this ends a loader process that is stuck in
# the operating system. Generous, because the first step from a cold cache may need a shard for every image.
_WORKER_TIMEOUT = 1800


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, ready to be stacked."""

    image: Tensor  # [3, size, size] uint8
    noise: Tensor  # [patches] float32
    sample_id: int
    text: DrawnText | None
    crops: Crops | None


class SampleTransform:
    """Turns a record into a `Sample`; every draw comes from the generator of this access."""

    def __init__(self, config: DataConfig, sampler: TextSampler | None, grid: tuple[int, int]) -> None:
        self._config = config
        self._sampler = sampler
        self._grid = grid

    def __call__(self, record: dict[str, Any], stream: str, sample_id: int, rng: np.random.Generator) -> Sample:
        """Decode, crop, flip, draw the mask noise, in the paired stream a text, and last what `data.crops` adds.

        Last, so that the draws of all other recipes do not depend on it.
        """
        name = f"data.{stream} sample {sample_id} ({record['dataset']}: {record['source']})"
        config = self._config
        size, min_crop, flip = config.image_size, config.min_crop, config.flip
        photograph = None
        if config.decode == "scaled":
            image = scaled_view(record["image"], size, min_crop=min_crop, flip=flip, rng=rng, name=name)
        else:
            photograph = decode(record["image"], name=name)
            image = random_view(photograph, size, min_crop=min_crop, flip=flip, rng=rng)
        noise = torch.from_numpy(rng.random(self._grid[0] * self._grid[1], dtype=np.float32))
        text = self._sampler(record, sample_id, rng, name=name) if self._sampler and stream == "paired" else None
        crops = None
        if config.crops is not None:
            assert photograph is not None  # DataConfig refuses crops of scaled photographs
            image, crops = draw_crops(
                photograph,
                image,
                config.crops,
                min_crop=min_crop,
                flip=flip,
                grid=self._grid,
                rng=rng.spawn(1)[0],  # of their own: what is drawn for texts changes no crop
            )
        return Sample(image=image, noise=noise, sample_id=sample_id, text=text, crops=crops)


@dataclass(frozen=True)
class Collate:
    """Stacks the samples of a device batch into a `Batch`."""

    max_tokens: int
    pad_id: int
    distinct_texts: bool

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Split the samples into the paired and the unpaired part; a part without samples is absent."""
        batch: dict[str, dict[str, Tensor]] = {}
        texts = [sample.text for sample in samples if sample.text is not None]
        if texts:
            batch["paired"] = _stack([sample for sample in samples if sample.text is not None])
            batch["paired"] |= collate_texts(
                texts, max_tokens=self.max_tokens, pad_id=self.pad_id, distinct=self.distinct_texts
            )
        unpaired = [sample for sample in samples if sample.text is None]
        if unpaired:
            batch["unpaired"] = _stack(unpaired)
        return cast(Batch, batch)


def _stack(samples: Sequence[Sample]) -> dict[str, Tensor]:
    part = {
        "image": torch.stack([sample.image for sample in samples]),
        "noise": torch.stack([sample.noise for sample in samples]),
        "sample_id": torch.tensor([sample.sample_id for sample in samples]),
    }
    crops = [sample.crops for sample in samples if sample.crops is not None]
    names = ("global_crops", "local_crops", "block_mask") if crops else ()
    return part | {name: torch.stack([getattr(crop, name) for crop in crops]) for name in names}


def _check_local_size(config: DataConfig, grid: tuple[int, int]) -> None:
    """Refuse local views that are not whole patches; raises UserError."""
    patch = config.image_size // grid[0]
    if config.crops is not None and config.crops.local_size % patch:
        size = config.crops.local_size
        raise UserError(
            f"data.crops.local_size = {size}: is not divisible by the patch size {patch}; "
            f"set it to {max(1, size // patch) * patch}"
        )


def num_samples_in_batch(batch: Mapping[str, Any]) -> int:
    """Count the images of both parts. Composer adds them up over the ranks and resumes at that position."""
    return sum(len(part["image"]) for part in batch.values())


def refuse_to_split(batch: Batch, microbatch_size: int | float) -> list[Batch]:
    """Return the whole batch, or raise UserError where Composer asks for a smaller microbatch."""
    device_batch = num_samples_in_batch(batch)
    if microbatch_size < device_batch:
        raise UserError(
            f"trainer.device_train_microbatch_size = {microbatch_size}: a microbatch smaller than the device batch "
            f"({device_batch} images) has fewer negatives and so another contrastive loss; "
            f"remove the key or set it to {device_batch}"
        )
    return [batch]


def build_loader(
    config: DataConfig,
    *,
    tokenizer: "PreTrainedTokenizerBase | None",
    grid: tuple[int, int],
    seed: int,
    distinct_texts: bool = True,
) -> DataSpec:
    """Build the training loader of this rank. Opens the streams and checks them before the first batch.

    Args:
        config: The streams and their augmentation.
        tokenizer: The text encoder's; None only where there is no paired stream.
        grid: Rows and columns of patches of an image.
        seed: Of the order, the augmentation, the text draws and the mask noise. A resumed run keeps its first seed.
        distinct_texts: See `data.text.collate_texts`.

    Returns:
        A DataSpec of a torch DataLoader that yields `Batch`; its length is the number of steps in an epoch.

    Raises:
        UserError: A stream's files, columns or sizes do not fit `config`; names the key and the remedy.
    """
    _check_local_size(config, grid)
    sampler, pad_id = None, 0
    if config.paired is not None:
        if tokenizer is None:
            raise ValueError("a paired stream needs a tokenizer")
        if config.max_tokens > tokenizer.model_max_length:
            raise UserError(
                f"data.max_tokens = {config.max_tokens}: the text encoder reads at most {tokenizer.model_max_length} "
                f"tokens; set data.max_tokens={tokenizer.model_max_length} or less"
            )
        prompts = config.prompts.applied_to(read_pack(config.prompts.pack))
        tokenise = Tokenisation(
            tokenizer,
            config.max_tokens,
            tagger=build_tagger(config.entities) if config.entities is not None else None,
            max_sentences=config.sentences.max_sentences if config.sentences is not None else None,
        )
        sampler = TextSampler(
            tokenise,
            prompts,
            label=config.label,
            join_texts=config.join_texts,
            noise_length=config.max_tokens if config.entities is not None else 0,
        )
        pad_id = tokenizer.pad_token_id or 0  # masked out, so any id serves where the tokenizer has none
    transform = SampleTransform(config, sampler, grid)
    dataset = JointDataset(open_streams(config, together=True), transform=transform, data=config, seed=seed)
    loader = DataLoader(
        dataset,
        batch_size=dataset.batch_size,
        num_workers=config.num_workers,
        collate_fn=Collate(config.max_tokens, cast(int, pad_id), distinct_texts),
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=config.num_workers > 0,
        timeout=_WORKER_TIMEOUT + config.patience if config.num_workers else 0,
    )
    return DataSpec(
        loader,
        num_samples=dataset.steps * dataset.global_batch,
        split_batch=cast(Any, refuse_to_split),
        get_num_samples_in_batch=cast(Any, num_samples_in_batch),
    )


def data_manifest(config: DataConfig) -> dict[str, dict[str, str | int]]:
    """Describe the data of a run for its log.

    Returns:
        Per stream its path, samples, shards, bytes and index.json's sha256; of the prompts of a paired stream the
        pack's name, version and sha256, and so of the lexicon that finds its entities.
    """
    manifest: dict[str, dict[str, str | int]] = {
        stream.name: {
            "path": stream.source,
            "samples": stream.index.samples,
            "shards": stream.index.shards,
            "bytes": stream.index.bytes,
            "sha256": stream.index.sha256,
        }
        for stream in open_streams(config)
    }
    if config.paired is not None:
        pack = read_pack(config.prompts.pack)
        manifest["prompts"] = {"pack": pack.name, "version": pack.version, "sha256": pack.sha256}
    if config.entities is not None:
        manifest["entities"] = describe_tagger(config.entities)
    return manifest
