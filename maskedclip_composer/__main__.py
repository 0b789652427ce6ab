"""Command line for what comes after pre-training: `python -m maskedclip_composer COMMAND --help`."""

import difflib
import importlib
import sys

from maskedclip_composer.callbacks.redaction import redact_tracebacks
from maskedclip_composer.errors import UserError, report

_PACKAGE = "maskedclip_composer"
# Name, module with `main(arguments) -> status`, and what it does. Modules are imported when they are called for.
COMMANDS: dict[str, tuple[str, str]] = {
    "embed": ("use.embed", "features of photographs, as a Parquet table"),
    "zero-shot": ("use.zero_shot", "photographs against classes in words"),
    "retrieve": ("use.retrieve", "the photographs that fit a text, or look like another"),
    "predict": ("use.predict", "classes and probabilities of photographs, by a classifier of evaluate.py"),
    "visualize": ("visualize.command", "pictures of what a model has learnt"),
    "card": ("cards.command", "write the model card and the data card of a run"),
    "dashboard": ("dashboard.command", "the page of a training run: five questions, curves, pictures, faults"),
    "export": ("export.command", "export a model for timm, transformers, onnxruntime, or as one file"),
    "verify": ("export.verify_command", "check an exported folder: its files and what it computes"),
    "push": ("export.push", "verify an exported folder and upload it to the Hugging Face hub"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status (2 after an error that the user can mend)."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0 if given else 2
    name, *rest = given
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean {near[0]}?" if near else "See python -m maskedclip_composer --help."
        return report(UserError(f"There is no command {name}.\n{hint}"), f"python -m {_PACKAGE}")
    module = importlib.import_module(f"{_PACKAGE}.{COMMANDS[name][0]}")
    try:
        return module.main(rest)
    except UserError as error:
        return report(error, f"python -m {_PACKAGE} {name}")
    except OSError as error:  # a disk that is full, a folder that is taken away meanwhile
        return report(
            UserError(f"{error}\nMake room or give another place; then start it again."), f"python -m {_PACKAGE} {name}"
        )
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS), default=0)
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join([f"usage: python -m {_PACKAGE} COMMAND ...", "", *lines, "", "COMMAND --help tells its options."])


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main())
