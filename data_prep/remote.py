"""Object stores by their URLs, through Streaming's own back ends: every wait is bounded, every failure explained."""

import os
import posixpath
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from maskedclip_composer.data.folders import IMAGE_SUFFIXES, is_litter
from maskedclip_composer.errors import UserError

SILENCE = 20.0
"""Seconds without an answer after which a request is tried again, `ATTEMPTS` times in all: about 90 s at the most."""
ATTEMPTS = 4


def is_remote(place: str) -> bool:
    """Whether `place` is a URL such as s3://bucket/path rather than a file or folder."""
    return urlparse(place).scheme != ""


def connect(url: str, role: str, local: Path | None = None) -> Any:
    """Return Streaming's uploader from the folder `local` to `url`, which lists objects too.

    Args:
        url: Its bucket must exist.
        role: The option that named it, for messages.
        local: Folder that files are uploaded from.

    Raises:
        UserError: The store cannot be reached, or refuses.
    """
    from streaming.base.storage import CloudUploader, S3Uploader

    class BoundedS3Uploader(S3Uploader):
        """With a client of ours: Streaming 0.13.0 waits for 60 s five times, and all of it twice."""

        def check_bucket_exists(self, remote: str) -> None:
            self.s3 = _s3_client()
            super().check_bucket_exists(remote)

    get = BoundedS3Uploader if urlparse(url).scheme == "s3" else CloudUploader.get
    folder = str(local or tempfile.gettempdir())
    try:
        return get((folder, url), keep_local=True, exist_ok=True, retry=1 if get is BoundedS3Uploader else 2)
    except Exception as error:  # each cloud's client has its own
        raise UserError(f"{role} {url}: cannot be reached: {explain(error)}") from error


def _s3_client() -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=SILENCE,
        read_timeout=SILENCE,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    return boto3.Session().client("s3", config=config, endpoint_url=os.environ.get("S3_ENDPOINT_URL"))


def explain(error: Exception) -> str:
    """Say what an error of a cloud's client means and what to do about it."""
    code = str((getattr(error, "response", None) or {}).get("Error", {}).get("Code", ""))
    if "Credentials" in type(error).__name__ or "Credentials" in str(error):
        return "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those of your cloud"
    if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return f"no permission ({code}); check the credentials and what they may do in this bucket"
    if code in ("404", "NoSuchBucket"):
        return "no such bucket; check its name, region and endpoint (S3_ENDPOINT_URL)"
    if isinstance(error, ImportError):
        return f"{error}; install the extra of your cloud: pip install 'maskedclip-composer[gcs]', [azure] or [oci]"
    return f"{error}; check address, bucket, credentials and network"


def list_objects(url: str, role: str) -> list[str]:
    """Return the names below `url`, relative to it and sorted; errors as of `connect`."""
    prefix = urlparse(url).path.strip("/")
    prefix = f"{prefix}/" if prefix else ""
    store = connect(url.rstrip("/") if prefix else url, role)
    try:
        names = store.list_objects() or []
    except Exception as error:
        raise UserError(f"{role} {url}: cannot be listed: {explain(error)}") from error
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix) and name != prefix)


def list_images(url: str) -> Iterator[str]:
    """Yield the photographs below `url` as `folders.walk_images` does those below a folder."""
    for name in list_objects(url, "--images"):
        *folders, file = name.split("/")
        hidden = any(folder.startswith(".") for folder in folders)
        if Path(file).suffix.lower() in IMAGE_SUFFIXES and not is_litter(file) and not hidden:
            yield name


def locate(root: Path | str, image: str) -> str:
    """Return path or URL of an image below a folder or URL."""
    return join(root, image) if isinstance(root, str) else str(root / image)


def join(url: str, name: str) -> str:
    """Return the URL of the object `name` below `url`."""
    return f"{url.rstrip('/')}/{name}"


def key_below(url: str, image: str) -> str:
    """Return the name of `image` relative to `url`; it need not exist.

    Raises:
        UserError: It lies outside, by `..` or as an absolute path or URL.
    """
    name = posixpath.normpath(image.replace("\\", "/").removeprefix(f"{url}/"))
    if name.startswith(("../", "/")) or name in ("..", ".") or "://" in image.removeprefix(f"{url}/"):
        raise UserError(f"image {image!r} lies outside the image root {url}; give a root above all images")
    return name


def fetch(url: str, to: Path) -> str:
    """Download one object; return why it cannot be had, empty where it is there now.

    Raises:
        UserError: The store fails, which says nothing of this object: the work must not go on without it.
    """
    if "#" in url or "?" in url:
        return "its name holds # or ?, which cannot be fetched; rename the object"
    try:
        _downloader(url.split("/", 1)[0], os.environ.get("S3_ENDPOINT_URL")).download(url, str(to), SILENCE)
    except FileNotFoundError:
        return "no such file"
    except Exception as error:
        code = str((getattr(error, "response", None) or {}).get("Error", {}).get("Code", ""))
        if code in ("404", "NoSuchKey"):
            return "no such file"
        raise UserError(
            f"{url}: download failed: {explain(error)}; run the same command again: finished parts are kept"
        ) from error
    return "" if to.is_file() else "no such file"


@lru_cache
def _downloader(scheme: str, endpoint: str | None) -> Any:
    """Return the process's client, which costs more to make than most photographs to fetch."""
    from streaming.base.storage import CloudDownloader

    return CloudDownloader.get(f"{scheme}//")


def fetch_table(url: str, folder: Path) -> Path:
    """Download the table at `url` to `folder` under its own name.

    Raises:
        UserError: It is not there.
    """
    to = folder / urlparse(url).path.rsplit("/", 1)[-1]
    if reason := fetch(url, to):
        raise UserError(f"--csv {url}: {reason}")
    return to
