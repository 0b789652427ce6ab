"""Train several recipes and evaluate them in one suite: python -m maskedclip_composer.sweep FILE.yaml [key=value ...].

FILE.yaml   a sweep, for example yamls/sweeps/table2.yaml
key=value   dotted overrides of the sweep, for example ranks=4 output=runs/table2 runs.mae.recipe=my/mae.yaml
--dry-run   check everything and print the commands

The same command continues: finished runs are left alone, an interrupted one goes on from its newest checkpoint.
"""

import shlex
import sys

from maskedclip_composer.errors import UserError, report


def main(arguments: list[str]) -> int:
    """Check, run, and return the exit status: 1 where a recipe failed, 2 for what the user can mend before."""
    dry_run = "--dry-run" in arguments
    arguments = [argument for argument in arguments if argument != "--dry-run"]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    path, *overrides = arguments
    try:
        from maskedclip_composer.config_file import load_config
        from maskedclip_composer.sweep.config import SweepConfig
        from maskedclip_composer.sweep.run import commands, run_sweep

        sweep = load_config(SweepConfig, path, overrides)
        if dry_run:
            for name in sweep.runs:
                sweep.resolved(name)
            print("\n".join(shlex.join(command) for command in commands(sweep).values()))
            return 0
        failed = run_sweep(sweep)
    except UserError as error:
        return report(error, "sweep")
    except KeyboardInterrupt:
        print(f"\nStopped. To go on: python -m maskedclip_composer.sweep {shlex.join([path, *overrides])}")
        return 130
    if failed:
        print(f"Failed: {', '.join(failed)}. The other runs are kept; the same command goes on with what failed.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
