"""Which pre-training run an encoder's source lies in. Light: without the network, for what only looks at folders."""

from pathlib import Path


def training_run(source: str) -> Path | None:
    """Return the folder of the pre-training run that an encoder's source lies in; None where there is no such run."""
    if ":" in source:
        return None
    path = Path(source)
    folders = {"latest": path.parent, "encoder.safetensors": path.parent}
    folder = path.parent.parent if path.suffix == ".pt" else folders.get(path.name, path)
    return folder if (folder / "config.yaml").is_file() else None
