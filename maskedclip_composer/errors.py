"""The one exception that users see, and how it is printed."""

import sys

from maskedclip_composer.callbacks.redaction import redact_text


class UserError(ValueError):
    """Something the user can mend: bad config, bad data, bad path.

    The message names the key, file or row, the value found, and the remedy. Entry points print it as one block on
    stderr and exit with status 2; a traceback is kept for programming errors.
    """


def report(error: UserError, command: str, where: str = "") -> int:
    """Print `error` as one readable block on stderr, without credentials, and return the exit status to use.

    Args:
        error: What to print.
        command: Stands before it, for example train.py.
        where: Names the rank, where there are several.
    """
    # A loader worker sends its traceback along as part of the message; the user's part comes last.
    lines = redact_text(str(error)).rsplit("UserError: ", 1)[-1].strip().splitlines()
    print(f"\n{command}: error{where}\n" + "\n".join(f"  {line}" for line in lines), file=sys.stderr, flush=True)
    return 2
