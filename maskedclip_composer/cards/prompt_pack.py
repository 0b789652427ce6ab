"""The prompt pack that worded a run's labels."""

from functools import lru_cache

from maskedclip_composer.cards.run_files import RunFiles
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.prompts import PromptPack
from maskedclip_composer.errors import UserError


def pack_of(run: RunFiles) -> PromptPack | None:
    """Return the pack, where the very file that the run used is here; else None."""
    name = run.section("data", "prompts").get("pack")
    if "paired" not in run.streams or not name:
        return None
    pack = _read(str(name))
    sha256 = ((run.manifest or {}).get("prompts") or {}).get("sha256")
    return pack if pack is not None and pack.sha256 == sha256 else None


@lru_cache(maxsize=4)  # both cards of a run ask, and those of all runs of a suite
def _read(name: str) -> PromptPack | None:
    try:
        return read_pack(name)
    except UserError:  # a file of one's own that is not here
        return None
