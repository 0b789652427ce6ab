"""Whether an exported folder is what was exported, and still computes what it did."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.export.folder import SUMS, read_sums, sha256, summed_files
from maskedclip_composer.export.golden import Golden, read_golden
from maskedclip_composer.export.targets import LibraryError, target_of

TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was compared.

    Attributes:
        what: The file, or loader and output.
        passed: Whether it is as it should be.
        found: In words.
    """

    what: str
    passed: bool
    found: str


def verify_folder(folder: Path, tolerance: float = TOLERANCE) -> list[Check]:
    """Compare checksums, then recompute the golden outputs with the loader of the folder's target.

    Nothing that a folder holds is run as code: weights are safetensors or ONNX, the rest is JSON.

    Args:
        folder: An exported folder.
        tolerance: Outputs may differ by so much, or by that share where they are larger than 1; logits by the logit
            scale times that.

    Raises:
        UserError: It is no exported folder, or the library that it is for is not installed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder.\nGive one that `python -m maskedclip_composer export` wrote.")
    checks = check_files(folder)
    try:
        golden = read_golden(folder)
        checks += check_outputs(folder, golden, tolerance)
    except LibraryError:
        raise
    except Exception as error:  # changed files make loaders fail in any way
        reason = str(error).strip().splitlines() or [type(error).__name__]
        checks.append(Check(what="golden outputs", passed=False, found=f"cannot be computed: {reason[0]}"))
    return checks


def check_files(folder: Path) -> list[Check]:
    """Compare every file with its checksum; README.md has none, for people may edit it.

    Raises:
        UserError: SHA256SUMS is absent, or is none.
    """
    sums = read_sums(folder)
    present = {path.relative_to(folder).as_posix(): path for path in summed_files(folder)}
    checks = []
    for name, digest in sorted(sums.items()):
        found = "absent" if name not in present else "as exported" if sha256(present[name]) == digest else "changed"
        checks.append(Check(what=name, passed=found == "as exported", found=found))
    unknown = sorted(present.keys() - sums.keys())
    return checks + [Check(what=name, passed=False, found=f"not in {SUMS}") for name in unknown]


def check_outputs(folder: Path, golden: Golden, tolerance: float) -> list[Check]:
    """Recompute all outputs and compare; see `verify_folder`."""
    found = target_of(golden.target).recompute(folder, golden)
    expected = golden.inputs | golden.outputs
    checks = [_compare(name, value, expected[name.split(": ")[1]], golden, tolerance) for name, value in found.items()]
    missing = golden.outputs.keys() - {name.split(": ")[1] for name in found}
    checks += [Check(what=name, passed=False, found="is not computed") for name in sorted(missing)]
    if "image_features" in expected:
        images = [f"image {number}" for number in range(1, len(expected["images"]) + 1)]
        checks += [
            _told_apart("images", found, "image_features", images, tolerance),
            _told_apart("prompts", found, "text_features", golden.prompts, tolerance),
        ]
    else:
        images = [f"image {number}" for number in range(1, len(expected["images"]) + 1)]
        checks.append(_told_apart("images", found, "features", images, tolerance))
    return checks


def _compare(name: str, found: Tensor, expected: Tensor, golden: Golden, tolerance: float) -> Check:
    if found.shape != expected.shape:
        return Check(what=name, passed=False, found=f"{list(found.shape)} in place of {list(expected.shape)}")
    allowed = expected.double().abs().clamp(min=1) * tolerance
    if name.endswith(": logits"):
        allowed = allowed.clamp(min=tolerance * golden.logit_scale)
    difference = (found.double() - expected.double()).abs()
    wrong = ~(difference <= allowed)  # what is no number is wrong, too
    if not wrong.any():
        return Check(what=name, passed=True, found=f"differs by {difference.max().item():.1e}")
    row, column = wrong.nonzero()[0].tolist()
    subject = golden.prompts[row] if ": text" in name and golden.prompts else f"image {row + 1}"
    said = f"{found[row, column].item():.6g} in place of {expected[row, column].item():.6g}"
    return Check(what=name, passed=False, found=f"{subject}, value {column + 1}: {said}")


def _told_apart(what: str, found: dict[str, Tensor], output: str, names: Iterable[str], tolerance: float) -> Check:
    """Check that different inputs have different features: of a collapsed or unloaded tower all are the same."""
    for name, features in found.items():
        if name.endswith(f": {output}"):
            for (first, left), (second, right) in combinations(zip(names, features, strict=True), 2):
                if not (left - right).abs().max() > tolerance:
                    return Check(what=f"different {what}", passed=False, found=f"{first!r} and {second!r} are the same")
    return Check(what=f"different {what}", passed=True, found="have different features")


def table(checks: list[Check]) -> Iterator[str]:
    """Yield the lines of a table."""
    width = max(len(check.what) for check in checks)
    for check in checks:
        yield f"{'ok' if check.passed else 'FAILED':<6}  {check.what:<{width}}  {check.found}"


def refuse_failed(checks: list[Check], problem: str, remedy: str) -> None:
    """Raise where something failed.

    Raises:
        UserError: With the first failures.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        lines = "\n".join(f"{check.what}: {check.found}" for check in failed[:5])
        raise UserError(f"{problem}:\n{lines}\n{remedy}")
