"""The names of a stream's settings, for messages: those of whoever opens it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StreamKeys:
    """How messages name a stream and what their reader can change about it.

    Attributes:
        stream: Begins each message.
        remote: The key of its source.
        local: The key of its folder on this machine.
        limit: The key of the cache's limit; None where there is none.
        timeout: The key of the seconds that a download may take; None where there is none.
        again: What to do after the mend.
    """

    stream: str
    remote: str
    local: str
    limit: str | None = None
    timeout: str | None = None
    again: str = "start again"

    @classmethod
    def of_training(cls, name: str) -> "StreamKeys":
        """Return those of the stream `name` of a `DataConfig`."""
        key = f"data.{name}"
        return cls(
            stream=key,
            remote=f"{key}.remote",
            local=f"{key}.local",
            limit="data.cache_limit",
            timeout="data.download_timeout",
            again="start again to resume",
        )
