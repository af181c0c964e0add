"""What a setting that names a store may be: a folder's path, or an object store's URL. Pure."""

from pathlib import PurePosixPath
from typing import Final

SCHEMES: Final = ("s3", "gs", "az")


def is_url(location: str) -> bool:
    """Whether a setting is to be read as a URL."""
    return "://" in location


def location_fault(location: str, *, is_folder_good: bool = True) -> str | None:
    """Why a setting names no store, if it does not.

    Args:
        location: The setting.
        is_folder_good: Whether a folder's path would do.
    """
    if not is_url(location) and is_folder_good:
        is_absolute = PurePosixPath(location).is_absolute()
        return None if is_absolute else "must be an absolute path, or a URL such as s3://bucket/x"
    scheme, _, rest = location.partition("://")
    if scheme not in SCHEMES:
        return f"must begin with one of {', '.join(f'{each}://' for each in SCHEMES)}"
    bucket, _, prefix = rest.partition("/")
    if not bucket or "@" in bucket or any(mark in rest for mark in "?#"):
        return "must be SCHEME://BUCKET/PREFIX; credentials are not part of it"
    if any(part in ("", ".", "..") for part in prefix.rstrip("/").split("/")) and prefix:
        return "must have no empty part, `.` or `..` in its prefix"
    return None
