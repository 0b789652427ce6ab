"""The process that reads the files: what it may make of one, with its memory limited and measured."""

import os
import resource
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import torch

from data_prep.photograph import Photograph, prepare
from maskedclip_composer.data.metadata import strip_metadata
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.data.scaled import scaled_view
from maskedclip_composer.data.transforms import decode
from maskedclip_composer.errors import UserError

SPARE = 4 << 30  # bytes of address space beyond what the libraries have taken


Judge = Callable[[bytes, Path], tuple[str, bool]]


def serve(connection: Connection, folder: Path, judge: Judge) -> None:
    """Read each file that comes and answer (what is wrong or "", whether it was stored, peak memory in bytes)."""
    # The libraries of C say a line about every damaged file.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + SPARE, resource.RLIM_INFINITY))
    connection.send(_peak())
    while (data := connection.recv()) is not None:
        path = folder / "photograph"
        path.write_bytes(data)
        try:
            wrong, stored = judge(data, path)
        except BaseException as error:  # whatever it is, nothing but a UserError may come out
            wrong, stored = f"{type(error).__name__}: {error}", False
        connection.send((wrong, stored, _peak()))


def judge(data: bytes, path: Path) -> tuple[str, bool]:
    """Say what is wrong with what becomes of a file in preparation and in training; and whether it was stored."""
    stored = False
    for recipe in (Recipe(size=32), Recipe(size=0, crop=False)):
        result = prepare(str(path), recipe)
        if isinstance(result, str):
            if not result.strip():
                return "quarantined without a reason", stored
            continue
        stored = True
        if wrong := _wrong(result):
            return wrong, stored
    for read in (decode, lambda data: scaled_view(data, 16, min_crop=0.2, flip=0.5, rng=np.random.default_rng(0))):
        try:
            pixels = read(data)
        except UserError:
            continue
        if 3 not in pixels.shape:
            return f"decoded to {pixels.shape}", stored
    return "", stored


def _wrong(photograph: Photograph) -> str:
    pixels = decode(photograph.data)
    if pixels.shape != (photograph.height, photograph.width, 3):
        return f"stored as {photograph.width} x {photograph.height}, decodes to {pixels.shape}"
    if strip_metadata(photograph.data) != photograph.data:
        return "stored with segments that decoding does not need"
    return ""


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
