"""What evaluation costs beside named peers: an epoch of fine-tuning's loader, and the bootstrap's draws.

OMP_NUM_THREADS=1 python benchmarks/evaluation.py; docs/performance.md explains the tables.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from loader import draw
from rounds import interleave, machine, milliseconds, print_table, times_faster
from sklearn.metrics import average_precision_score, roc_auc_score
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import create_transform
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from maskedclip_composer.evaluation.data import load_labelled
from maskedclip_composer.evaluation.decoded import decode_all
from maskedclip_composer.evaluation.loading import PhotographDataset, build_loader
from maskedclip_composer.evaluation.statistics.bootstrap import resampling_weights, weighted_scores
from maskedclip_composer.evaluation.transforms import train_transform
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD

VIEW = 224
MEAN, STD = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
RECIPE = {"auto_augment": "rand-m9-mstd0.5-inc1", "interpolation": "bicubic", "color_jitter": None}


def class_folders(folder: Path, images: int, distinct: int, size: int) -> None:
    """Write train, val and test with two classes; only train matters."""
    for split, count in (("train", images), ("val", 4), ("test", 4)):
        for label in ("a", "b"):
            draw(folder / split / label, count // 2, min(distinct, count // 2), size)


def peer_epoch(loader: DataLoader) -> None:
    """Load as RETFound does: files are decoded by PIL, images normalised and erased one by one."""
    for images, _ in loader:
        assert images.dtype == torch.float32


def own_epoch(loader: DataLoader, erase: RandomErasing) -> None:
    """Load and do on the batch what the model does on its device."""
    for batch in loader:
        erase((batch["image"].float() / 255 - MEAN) / STD)


def loaders(args: argparse.Namespace) -> None:
    """Print the table of an epoch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        class_folders(folder, args.images, args.distinct, args.size)
        transform = create_transform((3, VIEW, VIEW), is_training=True, re_prob=0.25, re_mode="pixel", **RECIPE)
        peer = DataLoader(ImageFolder(str(folder / "train"), transform), batch_size=16, shuffle=True, drop_last=True)
        data = load_labelled(str(folder))
        own_transform = train_transform(VIEW, min_crop=0.08, rand_augment=str(RECIPE["auto_augment"]), mean=IMAGE_MEAN)
        variants = {"ImageFolder, PIL (RETFound's recipe)": partial(peer_epoch, peer)}
        for title, memory in (("decoded at each access", 0.0), ("decoded once, kept in memory", 4.0)):
            split = decode_all(data, memory=memory, workers=1)["train"]
            loader = build_loader(PhotographDataset(split, own_transform), 16, 0, sampler=range(len(split)))
            variants[title] = partial(own_epoch, loader, RandomErasing(0.25, mode="pixel", device="cpu"))
        costs = interleave(variants, rounds=args.rounds)
        reference = next(iter(costs.values()))
        rows = [[name, milliseconds(own, args.images), times_faster(reference, own)] for name, own in costs.items()]
        print(f"{args.images} JPEGs of {args.size} px, batches of 16, {args.rounds} rounds\n")
        print_table(["variant", "ms per image", "times faster"], rows)


def bootstrap(args: argparse.Namespace) -> None:
    """Print the table of the draws."""
    rng = np.random.default_rng(0)
    one_hot = np.eye(5, dtype=bool)[rng.permutation(np.arange(args.test) % 5)]
    scores = rng.dirichlet(np.ones(5), args.test)
    weights = resampling_weights(one_hot, [""] * args.test, draws=args.draws, seed=0)

    def peer() -> None:
        for draw_weights in weights:
            roc_auc_score(one_hot, scores, average="macro", sample_weight=draw_weights)
            average_precision_score(one_hot, scores, average="macro", sample_weight=draw_weights)

    variants = {
        "scikit-learn, draw by draw": peer,
        "weighted_scores": lambda: weighted_scores(scores, one_hot, weights, []),
    }
    costs = interleave(variants, rounds=args.rounds)
    reference = costs["scikit-learn, draw by draw"]
    rows = [[name, milliseconds(own, args.draws), times_faster(reference, own)] for name, own in costs.items()]
    print(f"{args.draws} draws of {args.test} photographs in 5 classes, macro ROC and PRC, {args.rounds} rounds\n")
    print_table(["variant", "ms per draw", "times faster"], rows)


def main() -> None:
    """Read the sizes and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--distinct", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--test", type=int, default=103)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}\n")
    loaders(args)
    bootstrap(args)


if __name__ == "__main__":
    main()
