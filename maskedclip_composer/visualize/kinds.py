"""The kinds of pictures and what each needs, for the command line, which is there before torch is."""

KINDS: dict[str, str] = {
    "reconstruction": "patches hidden by masked image modelling, and what its decoder makes of them",
    "attention": "attention rollout, of the image encoder and behind the bridge",
    "texts": "similarity of patches with each --text",
    "patches": "principal components of patch features as colours",
    "spaces": "masked space and CLIP space side by side, with numbers",
}


def missing(kind: str, *, has_decoder: bool, has_texts: bool, given_texts: bool) -> str | None:
    """Return why a kind of picture cannot be drawn, and below it what would help; None where it can.

    Args:
        kind: One of `KINDS`.
        has_decoder: Whether the model comes with its pixel decoder.
        has_texts: Whether it has a CLIP space.
        given_texts: Whether there are texts to compare with.
    """
    if kind == "reconstruction" and not has_decoder:
        return (
            "the model has no pixel decoder.\nGive the run folder, or a checkpoint in it, of a run with objectives.mim."
        )
    if kind == "texts" and not has_texts:
        return "the model was trained without texts.\nGive one of a run with objectives.lg_clip."
    if kind == "texts" and not given_texts:
        return 'there is no text to compare with.\nAdd --text "…".'
    return None
