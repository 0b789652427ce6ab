"""Where the training data are one-sided, as far as their manifests show it."""

from collections.abc import Sequence

import numpy as np

from maskedclip_composer.cards.markdown import plain
from maskedclip_composer.cards.set_sections import listed
from maskedclip_composer.cards.training_data import StreamData


def bias_lines(streams: Sequence[StreamData]) -> list[str]:
    """Return list items, for each stream that is known; what no manifest tells is named at the end."""
    lines = []
    for stream in streams:
        if stream.absent or not stream.read.total:
            lines.append(f"- **{stream.name}**: not recorded ({plain(stream.absent or 'no photograph is listed')}).")
            continue
        lines += [f"- **{stream.name}**, {about}" for about in _of(stream)]
    return [
        *lines,
        "- Age, sex, origin and diagnoses beyond the labels: not recorded in any manifest, so nothing is known of how "
        "the model serves groups of patients.",
        "- Cameras: not recorded. The sizes of the originals tell some of it, the sets' publications more.",
    ]


def _of(stream: StreamData) -> list[str]:
    read = stream.read
    total = read.total
    sets = read.datasets.most_common()
    name, largest = sets[0]
    said = [f"sets: {plain(name)} has {largest / total:.0%} of the photographs" + _rest(len(sets))]
    known = sum(len(patients) for patients in read.patients.values())
    said.append(f"patients: {known:,} for {total:,} photographs" if known else "patients: unknown")
    eyes = sum(read.eyes.values(), start=type(read.datasets)())
    said.append(f"eyes: {plain(listed(eyes))}")
    labels = sum(read.labels.values(), start=type(read.datasets)())
    if labels:
        names = {code: name for of_folder in read.names.values() for code, name in of_folder.items()}
        (most, many), (least, few) = labels.most_common()[0], labels.most_common()[-1]
        said.append(
            f"labels: {len(labels)}; the most frequent, {plain(names.get(most, most))}, has {many:,}, the rarest, "
            f"{plain(names.get(least, least))}, {few:,}"
        )
    widths = np.frombuffer(read.measures["original_width"], np.float32)
    low, middle, high = np.percentile(widths, (5, 50, 95))
    said.append(f"originals: {low:,.0f}, {middle:,.0f}, {high:,.0f} pixels wide (5th, 50th, 95th percentile)")
    if uncropped := read.crop.get("failed", 0):
        said.append(f"crop: no retina was found in {uncropped:,} photographs, which are in as they were")
    return [f"{line}." for line in said]


def _rest(sets: int) -> str:
    return f"; the other {sets - 1} sets have the rest" if sets > 2 else "; one other has the rest" if sets == 2 else ""
