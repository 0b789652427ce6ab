"""The prompt pack that worded a run's labels."""

from maskedclip_composer.cards.run_files import RunFiles
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.prompts import PromptPack
from maskedclip_composer.errors import UserError


def pack_of(run: RunFiles) -> PromptPack | None:
    """Return the pack, where the very file that the run used is here; else None."""
    name = run.section("data", "prompts").get("pack")
    if "paired" not in run.streams or not name:
        return None
    try:
        pack = read_pack(str(name))
    except UserError:  # a file of one's own that is not here
        return None
    return pack if pack.sha256 == ((run.manifest or {}).get("prompts") or {}).get("sha256") else None
