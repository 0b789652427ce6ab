"""Silence warnings that say nothing to the user of a run; each with the reason and the version that prints it."""

import warnings

KNOWN = (
    # torch 2.7.0, distributed/checkpoint: its own use of its own deprecated class, at every sharded checkpoint.
    "TypedStorage is deprecated. It will be removed in the future and UntypedStorage will be the only storage class.",
    # Composer 0.32.1, at every start with parallelism=fsdp: the version is pinned and the tests run on it.
    "FSDP2 Config/APIs are experimental and subject to heavy changes",
)


def quiet_known_warnings() -> None:
    """Ignore the messages of `KNOWN`, from their first character on, and no others."""
    for message in KNOWN:
        # A filter's message is a regular expression.
        warnings.filterwarnings("ignore", message=message.replace(".", r"\."), category=UserWarning)
