"""`python -m maskedclip_composer push FOLDER REPO`: an exported folder to the Hugging Face hub, once it is verified."""

import argparse
from pathlib import Path

from maskedclip_composer.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Verify and upload; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m maskedclip_composer push",
        description="Verify an exported folder and upload it to a model repository of the Hugging Face hub. The token "
        "is that of `huggingface-cli login` or of the environment variable HF_TOKEN.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder that export wrote")
    parser.add_argument("repo", metavar="REPO", help="OWNER/NAME; made where it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to upload to, made where it does not exist")
    parser.add_argument("--dry-run", action="store_true", help="verify and list the files; send nothing")
    args = parser.parse_args(argv)

    from maskedclip_composer.export.source import TERMS
    from maskedclip_composer.export.verify import refuse_failed, verify_folder  # torch: not for --help

    refuse_failed(
        verify_folder(args.folder),
        f"{args.folder} is not as it was exported, and is not sent",
        "Export the model again.",
    )
    names = file_names(args.folder)
    sizes = [(args.folder / name).stat().st_size for name in names]
    for name, size in zip(names, sizes, strict=True):
        print(f"{size:>14,}  {name}")
    if TERMS in names:
        print(f"{args.folder / TERMS} tells the terms of the training data: read it before you pass the weights on.")
    if args.dry_run:
        print(f"dry run: nothing of {sum(sizes):,} bytes was sent to {args.repo}")
        return 0
    print(push(args.folder, args.repo, private=args.private, revision=args.revision))
    return 0


def file_names(folder: Path) -> list[str]:
    """Return the files that are uploaded: those with a checksum, their list, and the README."""
    from maskedclip_composer.export.folder import README, SUMS, read_sums

    return sorted([*read_sums(folder), SUMS, *([README] if (folder / README).is_file() else [])])


def push(folder: Path, repo: str, *, private: bool = False, revision: str | None = None) -> str:
    """Upload an exported folder in one commit, and return the commit's address.

    Args:
        folder: It is not verified here.
        repo: OWNER/NAME.
        private: Of a repository that is made; one that exists keeps what it has.
        revision: A branch; None for the main one.

    Raises:
        UserError: The hub refuses, cannot be reached, or is switched off.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
    from requests import RequestException

    api = HfApi(library_name="maskedclip_composer")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=revision,
            allow_patterns=file_names(folder),
            commit_message="Export of maskedclip_composer",
        )
    except OfflineModeIsEnabled as error:
        raise UserError(
            f"push to {repo}: the hub is switched off by HF_HUB_OFFLINE.\nUnset it for this command."
        ) from error
    except HFValidationError as error:
        raise UserError(f"push: REPO={repo} is no name of a repository: {error}\nGive OWNER/NAME.") from error
    except (LocalTokenNotFoundError, HfHubHTTPError, RequestException) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"push to {repo}: {reason}\nCheck the name, the network, and `huggingface-cli whoami`; the token needs the "
            "right to write."
        ) from error
    return str(commit.commit_url)
