"""What the mathematics of a step needs, part by part, and what a run of the paper's length then takes.

python benchmarks/budget.py
"""

import argparse

import torch
from rounds import print_table
from sizes import MASK_RATIO, SIZES, TEXT_TOKENS, Sizes

from maskedclip_composer.models.masking import num_visible
from maskedclip_composer.models.vit import ImageEncoderConfig, build_image_encoder

# Dense bfloat16 FLOP/s: NVIDIA's data sheet of the A100; of the H200 what a large product was measured to reach.
DEVICES = {"A100": 312e12, "H200": 790e12}
UNPAIRED, EPOCHS = 206_232, 200  # the paper's: an epoch is a pass over the unpaired images, with as many pairs


def useful_parts(sizes: Sizes, pairs: int, texts: int) -> dict[str, int]:
    """Return the operations that a step's mathematics needs, two for a multiplication and an addition, by part.

    The patches of an image are embedded once for both views, each distinct text is encoded once, nothing is computed
    twice, and decoders predict every patch. What is trained costs three times its forward pass, the teacher once.
    """
    config = ImageEncoderConfig(name=sizes.encoder, depth=sizes.depth)
    with torch.device("meta"):
        encoder = build_image_encoder(config, sizes.image_size)
    width, whole = encoder.embed_dim, sizes.patches + 1
    visible = 1 + num_visible(sizes.patches, MASK_RATIO)
    images, pixels = 2 * pairs, encoder.patch_size**2 * 3

    def blocks(dim: int, depth: int, tokens: int) -> int:
        return depth * (24 * dim**2 * tokens + 4 * dim * tokens**2)

    def decoder(dim: int, depth: int, out: int) -> int:
        return blocks(dim, depth, whole) + 2 * dim * (visible * width + sizes.patches * out)

    embed = 2 * pixels * width * sizes.patches
    text_width, layers, _ = sizes.text
    return {
        "patch embedding": 2 * images * embed,  # without a gradient of its input
        "student, visible patches of all images": 3 * images * blocks(width, sizes.depth, visible),
        "student, whole paired images": 3 * pairs * blocks(width, sizes.depth, whole),
        "bridge": 3 * pairs * blocks(width, sizes.bridge, whole),
        "text": 3 * texts * blocks(text_width, layers, TEXT_TOKENS.stop - 1),
        "pixel decoder": 3 * images * decoder(*sizes.pixel[:2], pixels),
        "feature decoder": 3 * images * decoder(width, sizes.feature_depth, width),
        "teacher, all images": images * (blocks(width, sizes.depth + sizes.bridge, whole) + embed),
    }


def useful_flops(sizes: Sizes, pairs: int, texts: int) -> int:
    """Return the sum of `useful_parts`."""
    return sum(useful_parts(sizes, pairs, texts).values())


def main() -> None:
    """Print the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=SIZES, default="paper", help="(%(default)s)")
    parser.add_argument("--pairs", type=int, default=180, help="and as many unpaired images (%(default)s)")
    parser.add_argument("--texts", type=int, default=19, help="different texts of the pairs (%(default)s)")
    args = parser.parse_args()
    parts = useful_parts(SIZES[args.sizes], args.pairs, args.texts)
    total = sum(parts.values())
    print(f"Budget: {args.sizes}, {args.pairs} + {args.pairs} images, {args.texts} texts\n")
    rows = [[name, f"{value / 1e12:.2f}", f"{value / total:.1%}"] for name, value in parts.items()]
    print_table(["part", "TFLOP", "share"], [*rows, ["all", f"{total / 1e12:.1f}", "100.0%"]])
    whole_run = total / args.pairs * UNPAIRED * EPOCHS
    print(f"{EPOCHS} epochs of {UNPAIRED:,} + {UNPAIRED:,} images: {whole_run / 1e18:.1f} EFLOP\n")
    shares = (0.35, 0.5, 0.6)
    rows = []
    for name, peak in DEVICES.items():
        hours = [whole_run / (4 * peak * share) / 3600 for share in shares]
        rows.append([f"4 {name}", *(f"{each:.1f} h ({4 * each:.0f} GPU hours)" for each in hours)])
    print_table(["devices", *(f"{share:.0%} of the peak" for share in shares)], rows)


if __name__ == "__main__":
    main()
