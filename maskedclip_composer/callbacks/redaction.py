"""Keep credentials out of everything that is written down or sent."""

import re
from typing import Any

HIDDEN = "***"
# Whole words of a key: `access_token` is hidden, `num_tokens` and `tokenizer` are not.
SECRET_KEY = re.compile(
    r"(?:^|[_\-.])(?:token|secret|password|passwd|passphrase|credentials?|(?:api|access|account|private)[_\-]?key)"
    r"(?:$|[_\-.])",
    re.IGNORECASE,
)
USER_INFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*://)[^/\s'\"]*@", re.IGNORECASE)
# Signed links of S3, Google and Azure, and connection strings of Azure.
SIGNATURE = re.compile(
    r"(?P<name>\b(?:sig|signature|token|password|secret|AccountKey|SharedAccessKey|"
    r"X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token))=)[^&;\s'\"]+",
    re.IGNORECASE,
)


def redact_text(text: str) -> str:
    """Return `text` without the credentials of URIs in it."""
    return SIGNATURE.sub(rf"\g<name>{HIDDEN}", USER_INFO.sub(rf"\g<scheme>{HIDDEN}@", text))


def redact(value: Any, key: str = "") -> Any:
    """Return a copy of nested mappings and lists without credentials.

    A text is hidden when its key names a secret; credentials inside URIs are hidden under any key. Numbers, booleans
    and null stay.
    """
    if isinstance(value, dict):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, key) for item in value]
    if isinstance(value, str):
        return HIDDEN if value and SECRET_KEY.search(key) else redact_text(value)
    return value
