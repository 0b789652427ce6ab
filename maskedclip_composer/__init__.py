"""Semi-supervised vision-language pre-training of retinal image encoders with Composer and Streaming."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskedclip_composer.use.load import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import what users call when they first ask for it: torch takes seconds, and the data preparation needs none."""
    if name == "load":
        from maskedclip_composer.use.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
