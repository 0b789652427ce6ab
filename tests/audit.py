"""Which installed packages have known vulnerabilities: make audit.

Exit status: 0 none, or all are listed in pyproject.toml under [tool.audit] with a reason; 1 there are others; 2 nothing
could be checked, because no service that knows of vulnerabilities answers from here. pip-audit gets an environment of
its own: what it needs is not what is checked.
"""

import json
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

# A release with advisories. Mirrors of PyPI have none of any, which pip-audit calls `No known vulnerabilities found`.
CONTROL = "https://pypi.org/pypi/jinja2/2.4.1/json"
WITHIN = 5  # seconds; each `make test` asks
LISTED = Path(__file__).parents[1] / "pyproject.toml"
CONSTRAINTS = LISTED.with_name("constraints.txt")


def main(environment: str) -> int:
    """Check the packages of the environment that this runs in; the other one, for pip-audit, is made where need be."""
    if error := unreachable():
        print(f"audit: nothing was checked, as no service of advisories is within reach ({error})")
        return 2
    answer, error = pip_audit(Path(environment))
    if not answer:
        print(f"audit: nothing was checked, as pip-audit gave no answer ({error})")
        return 2
    return tell(answer, tomllib.loads(LISTED.read_text(encoding="utf-8"))["tool"]["audit"])


def unreachable() -> str:
    """Say why nothing can be asked for; empty where a release that is known to be vulnerable is said to be so."""
    try:
        with urllib.request.urlopen(CONTROL, timeout=WITHIN) as answer:
            known = json.load(answer).get("vulnerabilities")
    except (OSError, ValueError) as error:
        return str(error)
    return "" if known else f"{CONTROL} has no advisories"


def pip_audit(environment: Path) -> tuple[list[dict[str, Any]], str]:
    """Return what pip-audit says of each package; nothing and the last line of its error where it has no answer."""
    if error := prepare(environment):
        return [], error
    packages = sysconfig.get_path("purelib")
    options = ["--path", packages, "--skip-editable", "-f", "json", "--progress-spinner", "off"]
    done = _run([str(environment / "bin" / "python"), "-m", "pip_audit", *options])
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError):
        return [], _last_line(done)


def prepare(environment: Path) -> str:
    """Install pip-audit unless the releases of constraints.txt are there; return why that failed, or nothing."""
    installed = environment / "constraints.txt"
    if installed.is_file() and installed.read_bytes() == CONSTRAINTS.read_bytes():
        return ""
    install = ["install", "--disable-pip-version-check", "-q", "-c", str(CONSTRAINTS), "pip-audit"]
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [str(environment / "bin" / "python"), "-m", "pip", *install],
    ):
        done = _run(command)
        if done.returncode:
            return _last_line(done)
    installed.write_bytes(CONSTRAINTS.read_bytes())
    return ""


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or ["no answer"])[-1]


def findings(answer: list[dict[str, Any]]) -> dict[str, str]:
    """Map the ids of advisories to the packages that they are about, and the releases that mend them."""
    return {
        vulnerability["id"]: f"{package['name']} {package['version']}, mended in "
        f"{', '.join(vulnerability['fix_versions']) or 'no release'}"
        for package in answer
        for vulnerability in package.get("vulns", [])
    }


def tell(answer: list[dict[str, Any]], listed: dict[str, str]) -> int:
    """Print what was found and return the exit status."""
    found = findings(answer)
    unknown = [package["name"] for package in answer if "skip_reason" in package]
    new = {name: about for name, about in found.items() if name not in listed}
    print(f"audit: {len(answer) - len(unknown)} packages, {len(found)} advisories, {len(new)} of them not listed")
    print("\n".join(f"  {name}: {about}" for name, about in sorted(new.items())), end="\n" if new else "")
    if unknown:
        print(f"  not checked: {', '.join(sorted(unknown))}")
    if gone := sorted(set(listed) - set(found)):
        print(f"  listed in pyproject.toml and not found any more: {', '.join(gone)}")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
