"""Paths of a machine do not belong in what is published: the last name of a path is enough to tell what is meant."""

import re

from maskedclip_composer.callbacks.redaction import redact_text

_ABSOLUTE = re.compile(r"(?:(?<=^)|(?<=[\s:='\"(\[@]))(?:file://)?[~.]{0,2}/(?:[^\s/'\"(),;\]]+/)*(?=[^\s/'\"(),;\]])")

_PHOTOGRAPH = re.compile(r"[^\s,;:()'\"]+\.(?:jpe?g|png|tiff?|bmp|ppm|webp|gif|dcm)\b", re.IGNORECASE)


def without_photographs(text: str) -> str:
    """Return text without names of picture files, which may tell who they are of."""
    return _PHOTOGRAPH.sub("(a photograph)", text)


def without_folders(text: str) -> str:
    """Return text without credentials, and with the last name alone of each absolute path; web addresses stay."""
    return _ABSOLUTE.sub("", redact_text(text))
