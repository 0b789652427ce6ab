"""Durations in a yaml: Composer's notation, checked without importing Composer."""

import re
from typing import Any

from maskedclip_composer.errors import UserError


def check_time(key: str, value: Any, *, zero: bool = False) -> None:
    """Refuse what is no number of epochs or steps.

    Raises:
        UserError: Names key and value.
    """
    if not re.fullmatch(r"\d+(ep|ba)", str(value)) or (not zero and re.match(r"0+[eb]", str(value))):
        raise UserError(f"{key}={value} is no time.\nUse epochs or steps, such as 40ep or 500ba.")


def in_steps(time: str, steps_per_epoch: int) -> int:
    """Return a checked time as steps."""
    number, unit = time[:-2], time[-2:]
    return int(number) * (steps_per_epoch if unit == "ep" else 1)
