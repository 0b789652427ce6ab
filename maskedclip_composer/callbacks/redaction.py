"""Keep credentials out of everything that is written down or sent."""

import os
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

HIDDEN = "***"
# Tokens of texts and images, which are settings: mask_token, cls_token.
_ORDINARY = r"(?<!(?<![A-Za-z0-9])mask[_\-.])(?<!(?<![A-Za-z0-9])(?:pad|cls|unk|sep|eos|bos)[_\-.])"
_WORDS = (
    rf"(?:{_ORDINARY}token|secret|password|passwd|passphrase|pwd|credentials?|authorization|bearer|cookie|connection[_\-]?string|"
    r"(?:api|access|account|private|secret|signing|encryption|shared)[_\-]?key)"
)
# Whole words of a key: `access_token` is hidden, `num_tokens` and `tokenizer` are not.
SECRET_KEY = re.compile(rf"(?:^|[_\-.]){_WORDS}\d*(?:$|[_\-.])", re.IGNORECASE)
# Words that end a key whose number is hidden too; `mask_token_id: 103` is a setting.
_SECRET_NUMBER = re.compile(r"(?:^|[_\-.])(?:secret|password|passwd|passphrase|pwd|pin)\d*$", re.IGNORECASE)
# Of variables that hold a path, which an error message must name where nothing lies there.
_FILE = re.compile(r"_(?:FILE|PATH|DIR|APPLICATION_CREDENTIALS)$", re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# No expression may look at a place of the text over and over: messages can be megabytes, and of anybody's making. So
# each begins with something fixed, and what it repeats from many beginnings is bounded.
# A slash in a password is not of the standard, but SQLAlchemy takes it; of a web address, host:5000/a@b has none.
USER_INFO = re.compile(
    r"(?<=://)(?:[^/\s'\"]*|(?!(?:(?<=http://)|(?<=https://))[^/:\s'\"]*:\d{1,5}/)[^/:\s'\"]{,256}:[^\s'\"]{,256})@",
    re.IGNORECASE,
)
_QUOTED = r"(?P<quote>['\"])(?![,\s}\])])(?:\\.|(?!(?P=quote))[^\\\n])+"
# `name=value` of links, connection strings, environments and command lines; `"name": "value"` of JSON and Python.
ASSIGNED = re.compile(
    rf"(?P<name>(?<![A-Za-z0-9])(?:{_WORDS}|sig|signature|AWSAccessKeyId)\d*(?:\s?=\s?|['\"]\s*:\s*))"
    rf"(?:{_QUOTED}|(?:(?:Bearer|Basic|Token)\s+)?[^&;,\s'\"]+)",
    re.IGNORECASE,
)
OPTION = re.compile(
    rf"(?P<name>(?<![A-Za-z0-9\-])--[A-Za-z0-9\-]{{,99}}{_WORDS}\s+)(?:{_QUOTED}|[^\s\-'\"][^\s]*)", re.IGNORECASE
)
# Headers, and the lines in which people write passwords; `token: …` may be prose.
HEADER = re.compile(
    r"(?P<name>\b(?:proxy-)?authorization\s*:\s*(?:\w[\w\-]*\s+)?|\bbearer\s+|\b(?:set-)?cookie\s*:\s*|"
    r"\b(?:password|passwd|passphrase|secret_key|secret_access_key|api_key|access_token)\s*:\s+)"
    rf"(?:{_QUOTED}|[^\s'\",}}\]]+)",
    re.IGNORECASE,
)
# What can be known by its form: AWS, Hugging Face, GitHub, GitLab, Databricks, Slack, Google, OpenAI, JSON web tokens.
TOKEN = re.compile(
    r"\b(?:(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA)[A-Z0-9]{16}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|"
    r"github_pat_\w{20,}|glpat-[\w\-]{16,}|dapi[0-9a-f]{32}|xox[abeprs]-[\w\-]{10,}|AIza[\w\-]{30,}|sk-[\w\-]{20,}|"
    r"eyJ[\w\-]{10,1000}\.[\w\-]{10,}\.[\w\-]+)"
)
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def redact_text(text: str) -> str:
    """Return `text` without the credentials of URIs, assignments and headers in it, and those that have a known form.

    Also hidden is the value of every environment variable whose name is that of a secret: an error message of a cloud's
    client may repeat it anywhere.
    """
    for secret in _secrets_of_the_environment():
        text = text.replace(secret, HIDDEN)
    text = PRIVATE_KEY.sub(HIDDEN, text)
    text = USER_INFO.sub(f"{HIDDEN}@", text)
    text = ASSIGNED.sub(rf"\g<name>\g<quote>{HIDDEN}", text)
    text = OPTION.sub(rf"\g<name>\g<quote>{HIDDEN}", text)
    text = HEADER.sub(rf"\g<name>\g<quote>{HIDDEN}", text)
    return TOKEN.sub(HIDDEN, text)


def redact(value: Any, key: str = "") -> Any:
    """Return a copy of nested mappings and lists without credentials.

    A text is hidden when its key names a secret, and so is all that a mapping of such a key holds; what `redact_text`
    finds is hidden under any key. Booleans and null stay, and numbers unless they are passwords.
    """
    is_secret = SECRET_KEY.search(_HUMP.sub("_", key)) is not None
    if isinstance(value, dict):
        return {name: redact(item, f"{key}.{name}" if is_secret else str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, key) for item in value]
    if isinstance(value, str):
        return HIDDEN if value and is_secret else redact_text(value)
    if isinstance(value, bytes):
        return HIDDEN if value and is_secret else value
    if isinstance(value, int | float) and not isinstance(value, bool) and _SECRET_NUMBER.search(key):
        return HIDDEN
    return value


def print_traceback(error: BaseException) -> None:
    """Print an exception with its traceback on stderr, without credentials."""
    sys.stderr.write(redact_text("".join(traceback.format_exception(error))))
    sys.stderr.flush()


def redact_tracebacks() -> None:
    """Let the traceback of an exception that nobody catches be printed without credentials.

    Errors of MLflow's client, among others, repeat addresses with their passwords.
    """

    def print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        print_traceback(error.with_traceback(trace))

    def print_of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and args.exc_type is not SystemExit:
            print_redacted(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = print_redacted
    threading.excepthook = print_of_thread


def _secrets_of_the_environment() -> list[str]:
    """Return the values, the longest first; short ones occur in ordinary text, and files are no secrets."""
    values = {
        value
        for name, value in os.environ.items()
        if len(value) >= 8 and SECRET_KEY.search(name) and not _is_file(name, value)
    }
    return sorted(values, key=len, reverse=True)


def _is_file(name: str, value: str) -> bool:
    """Whether a variable holds a path. One of 64 AWS keys begins with a slash too."""
    if not value.startswith(("/", "~", "file:")):
        return False
    path = os.path.expanduser(value.removeprefix("file:").removeprefix("//"))
    return _FILE.search(name) is not None or os.path.exists(path)
