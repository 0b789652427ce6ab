"""Paths of a machine do not belong in what is published: the last name of a path is enough to tell what is meant."""

import re

from maskedclip_composer.callbacks.redaction import HIDDEN, redact_text

_NAME = r"(?:[^\s/\\'\"(),;\]]|\([^\s/\\()]*\))+"
# A folder may have spaces in its name. None stands beside a separator, where a sentence goes on behind a path. Where
# both may be meant, as in `/data/x with mean/std`, words are lost rather than a folder told.
_FOLDER = rf"{_NAME}(?: +(?:[^\s/\\'\"(),;:\]]|\([^\s/\\()]*\))+)*"
_ABSOLUTE = re.compile(
    rf"(?:(?<=^)|(?<=[\s:='\"(\[@,;`]))(?:file://)?(?:~[\w.-]*|\.{{0,2}})/(?:{_FOLDER}/)*(?=[^\s/'\"(),;\]])"
)
_WINDOWS = re.compile(
    rf"(?<!\w)(?:file:/{{2,3}})?(?:[A-Za-z]:[\\/](?!/)\\?|(?<!\\)\\{{2,4}}{_FOLDER}\\)(?:{_FOLDER}[\\/]+)*"
)
_STORE = re.compile(rf"(?<![\w+.-])(?!https?:|file:)[a-z][a-z0-9+.-]*://(/*(?:{_FOLDER}/)*)({_NAME})?", re.IGNORECASE)

_PHOTOGRAPH = re.compile(r"[^\s,;:()'\"]+\.(?:jpe?g|png|tiff?|bmp|ppm|webp|gif|dcm)\b", re.IGNORECASE)


def without_photographs(text: str) -> str:
    """Return text without names of picture files, which may tell who they are of."""
    return _PHOTOGRAPH.sub("(a photograph)", text)


def without_folders(text: str) -> str:
    """Return text without credentials, and with the last name alone of each absolute path; web addresses stay.

    Paths are those of POSIX and Windows and the addresses of object stores, whose bucket is never told.
    """
    text = _STORE.sub(lambda found: found[2] if found[1] and found[2] else HIDDEN, redact_text(text))
    return _ABSOLUTE.sub("", _WINDOWS.sub("", text))
