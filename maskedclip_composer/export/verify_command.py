"""`python -m maskedclip_composer verify FOLDER`."""

import argparse
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Print a table of what was checked; return the exit status, 1 where something is not as it was exported."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer verify",
        description="Compare the files of an exported folder with their checksums, and recompute its golden outputs "
        "with the library that it was exported for.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder that export wrote")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        metavar="X",
        help="outputs may differ by X, or by that share where they are larger than 1 (default: 1e-4)",
    )
    args = parser.parse_args(argv)
    if not args.tolerance > 0:
        parser.error(f"--tolerance {args.tolerance} is not above 0")

    from maskedclip_composer.export.verify import table, verify_folder  # torch: not for --help

    checks = verify_folder(args.folder, args.tolerance)
    print("\n".join(table(checks)))
    failed = [check for check in checks if not check.passed]
    print(f"\n{args.folder}: " + (f"FAILED: {failed[0].what}: {failed[0].found}" if failed else "as it was exported"))
    return 1 if failed else 0
