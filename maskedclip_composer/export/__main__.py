"""`python -m maskedclip_composer.export ...`: the same as `python -m maskedclip_composer export ...`."""

import sys

from maskedclip_composer.__main__ import main
from maskedclip_composer.callbacks.redaction import redact_tracebacks

if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main(["export", *sys.argv[1:]]))
