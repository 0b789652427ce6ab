"""Train several recipes and evaluate them together: python -m maskedclip_composer.sweep FILE.yaml [key=value ...].

FILE.yaml   a sweep, for example yamls/sweeps/table2.yaml
key=value   dotted overrides, for example ranks=4 values.paired=s3://bucket/paired
--dry-run   check everything and print the commands

Runs go to <output>/<name>/<run>, what they print to <run>.log beside them. The same command continues a sweep that was
stopped or in which a run failed: what is finished is kept.
"""

import shlex
import sys

from filelock import FileLock, Timeout

from maskedclip_composer.callbacks.redaction import redact_text, redact_tracebacks
from maskedclip_composer.errors import UserError, report

COMMAND = "python -m maskedclip_composer.sweep"


def main(arguments: list[str]) -> int:
    """Check, train, evaluate, tell; return the exit status: 1 where a command failed, 2 where the sweep is wrong."""
    options = [argument for argument in arguments if argument.startswith("-")]
    if len(arguments) == len(options) or {"-h", "--help"} & set(options):
        print(__doc__)
        return 0 if {"-h", "--help"} & set(options) else 2
    path, *overrides = [argument for argument in arguments if argument not in options]
    try:
        if options not in ([], ["--dry-run"]):
            raise UserError(f"{' '.join(options)} is no option.\nThere is --dry-run; settings are given as key=value.")
        from maskedclip_composer.config_file import load_config
        from maskedclip_composer.sweep.config import SweepConfig
        from maskedclip_composer.sweep.execute import execute
        from maskedclip_composer.sweep.plan import plan

        sweep = load_config(SweepConfig, path, overrides)
        jobs = plan(sweep)
        if options:
            for job in jobs:
                print(f"{job}{'  # finished' if job.is_done else ''}")
            return 0
        sweep.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(sweep.folder / "sweep.lock", timeout=0):
            return execute(jobs, again=redact_text(f"{COMMAND} {shlex.join(arguments)}"))
    except Timeout as error:
        return report(UserError(f"{error.lock_file}: another process is at work there.\nWait, or stop it."), COMMAND)
    except UserError as error:
        return report(error, COMMAND)


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main(sys.argv[1:]))
