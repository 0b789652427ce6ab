"""`overlap.html`: pairs of photographs side by side, in one file that needs no other."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from data_prep.shards import Shards, open_picture

_SIDE = 180  # pixels
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em; color: #222; }
section { border: 1px solid #ccc; border-radius: 6px; margin: 0 0 1em; padding: .6em 1em; }
section.test { border-left: 6px solid #b00020; }
h2 { font-size: 1em; margin: 0 0 .6em; }
b { border-radius: 3px; color: #fff; background: #555; padding: .1em .5em; margin-right: .4em; font-weight: 600; }
b.red { background: #b00020; }
div.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1em; }
figure { display: flex; gap: 1em; margin: 0; min-width: 0; }
figure > img, figure > i { width: 180px; height: 180px; object-fit: contain; flex: none; }
figure > img, figure > i { background: #000; color: #aaa; }
figure > i { display: grid; place-items: center; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6em; margin: 0; align-content: start; min-width: 0; }
dt { color: #777; }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(
    pairs: Sequence[Mapping[str, Any]], total: int, sets: Sequence[str], distance: int, shards: Mapping[str, Shards]
) -> Iterator[str]:
    """Write the page piece by piece.

    Args:
        pairs: To show: rows of `overlap.find_overlap`.
        total: Pairs that were found.
        sets: Names of all that were compared.
        distance: Bits up to which photographs count as near.
        shards: Photographs by name of the set.
    """
    yield '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Overlap</title>\n'
    yield f"<style>{_STYLE}</style>\n"
    yield f"<h1>Overlap of prepared sets</h1>\n<p>Compared: {escape(', '.join(sets))}. Near: up to {distance} of 256 "
    yield "bits of the perceptual hash differ. Red edge: a photograph of a split named test meets another split or "
    yield "set.</p>\n"
    if len(pairs) < total:
        yield f"<p>Shown are the first {len(pairs)} of {total} pairs, the gravest; all are in overlap.csv. Raise "
        yield "--pairs to see more.</p>\n"
    else:
        yield f"<p>All {total} pairs are shown.</p>\n"
    for number, pair in enumerate(pairs, start=1):
        yield _pair(number, pair, shards)
    yield "</html>\n"


def _pair(number: int, pair: Mapping[str, Any], shards: Mapping[str, Shards]) -> str:
    bits = "" if pair["distance"] is None else f" {pair['distance']} bits differ"
    tags = "<b class=red>test</b>" if pair["test"] else ""
    tags += "<b class=red>labels differ</b>" if pair["conflict"] else ""
    sides = "".join(_side(pair, side, shards[pair[f"{side}_set"]]) for side in "ab")
    kind = escape(pair["kind"])
    shade = ' class="test"' if pair["test"] else ""
    return (
        f'<section{shade}>\n<h2>{number}. <b>{kind}</b>{tags}{bits}</h2>\n<div class="pair">{sides}</div>\n</section>\n'
    )


def _side(pair: Mapping[str, Any], side: str, shards: Shards) -> str:
    said = "".join(
        f"<dt>{name}</dt><dd>{escape(pair[f'{side}_{name}'])}</dd>"
        for name in ("set", "dataset", "split", "image", "label", "patient")
        if pair[f"{side}_{name}"]
    )
    return f"<figure>{_picture(shards, pair[f'{side}_folder'], pair[f'{side}_position'])}<dl>{said}</dl></figure>\n"


def _picture(shards: Shards, folder: str, position: int) -> str:
    try:
        picture = open_picture(shards.image(folder, position))
        picture.thumbnail((_SIDE, _SIDE))
    except FileNotFoundError:
        return "<i>shards not found</i>"
    except (OSError, LookupError, ValueError):  # cut short, or others than those of the manifest
        return "<i>shards damaged</i>"
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
