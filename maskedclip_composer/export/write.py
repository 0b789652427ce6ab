"""Export a model: write the folder aside, verify it, and give it its name."""

from pathlib import Path

from maskedclip_composer.export.folder import README, check_place, whole_folder, write_sums
from maskedclip_composer.export.golden import compute_golden, write_golden
from maskedclip_composer.export.readme import readme
from maskedclip_composer.export.source import DATA_CARD, TERMS, open_source
from maskedclip_composer.export.targets import target_of
from maskedclip_composer.export.verify import refuse_failed, verify_folder


def export(source: Path, to: str, out: Path, *, overwrite: bool = False) -> list[str]:
    """Export a trained model.

    Args:
        source: As `maskedclip_composer.load` takes it.
        to: timm, hf, onnx or safetensors.
        out: The folder to make.
        overwrite: Whether an earlier export there may be replaced.

    Returns:
        Notes for the user.

    Raises:
        UserError: The source is no model, `out` is in use, a library is missing, or what was written does not compute
            what the model does.
    """
    check_place(out, overwrite=overwrite)
    target = target_of(to)
    opened = open_source(source)
    terms = opened.terms
    with whole_folder(out, overwrite=overwrite) as folder:
        notes = target.write(opened, folder)
        for name, text in ((TERMS, terms), (DATA_CARD, opened.data_card)):
            if text is not None:
                (folder / name).write_text(text)
        write_golden(folder, compute_golden(to, opened.model, opened.tokenizer if target.WITH_TEXTS else None))
        (folder / README).write_text(readme(opened, to, has_terms=terms is not None, notes=notes))
        write_sums(folder)
        refuse_failed(
            verify_folder(folder),
            f"{source}: the model or its export is not sound, and {out} was not written",
            "Look at the model first: python -m maskedclip_composer dashboard, or its zero-shot answers.",
        )
    return notes
