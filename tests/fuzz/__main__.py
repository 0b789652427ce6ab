"""Read damaged and hostile photographs for a while: python -m tests.fuzz [--seconds 600] [--seed 0]."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fuzz.run import feed, files


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="another one, other mutations")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))  # kept: failures lie there
    found = feed(files(args.seed), folder, seconds=args.seconds)
    print(f"{found.tried} files, {found.stored} stored, peak {found.memory / 1e6:.0f} MB above the libraries")
    print("\n".join(found.failures) or "no failure")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
