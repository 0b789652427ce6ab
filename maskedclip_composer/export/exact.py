"""Loading weights that must be exactly those of the architecture."""

from collections.abc import Mapping

from torch import Tensor, nn

from maskedclip_composer.errors import UserError

SHOWN = 20


def load_exactly(module: nn.Module, weights: Mapping[str, Tensor], *, source: str, architecture: str) -> None:
    """Copy the weights into the module; nothing may be missing, left over or of another shape.

    Args:
        module: Changed in place, and only where everything fits.
        weights: Under the module's own names.
        source: The file, for the message.
        architecture: What the module is, for the message.

    Raises:
        UserError: Something does not fit; the message lists it.
    """
    wanted = module.state_dict()
    problems = [f"missing: {key}" for key in wanted.keys() - weights.keys()]
    problems += [f"unexpected: {key}" for key in weights.keys() - wanted.keys()]
    problems += [
        f"{key}: {list(weights[key].shape)} in the file, {list(wanted[key].shape)} in {architecture}"
        for key in wanted.keys() & weights.keys()
        if weights[key].shape != wanted[key].shape
    ]
    if problems:
        raise UserError(f"The weights in {source} are not those of {architecture}:\n{listed(problems)}")
    module.load_state_dict(dict(weights), strict=True)


def listed(problems: list[str]) -> str:
    """Return the problems in order, one per line, the first of them alone where there are many."""
    more = f"\n... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "\n".join(sorted(problems)[:SHOWN]) + more
