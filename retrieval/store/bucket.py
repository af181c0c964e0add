"""An object store in eight calls, with our errors: what the layout needs, and no more.

Every failure is StoreFailed or StoreFull and names the call and the object, never a
credential. The client tries again by itself for a few seconds.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from retrieval.store.base import StoreFailed, StoreFull
from retrieval.store.layout import Found

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ClientConfig, S3Config
    from obstore.store import ObjectStore as Client

PATIENCE: Final = timedelta(seconds=8)
"""How long one call may take, tries and all; a sidecar waits 10 s for its answer."""
_MAX_RETRIES: Final = 3
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_PAGE: Final = 1000
_PIECE_BYTES: Final = 8 * 2**20
_FULL: Final = re.compile(
    r"QuotaExceeded|StorageFull|InsufficientStorage|no space left|507 Insufficient", re.IGNORECASE
)
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_UNKNOWN_TO_IT: Final = re.compile(r"UserNotFound|InvalidAccessKeyId")
_CODE: Final = re.compile(r"<Code>([^<]{1,80})</Code>(?:.*?<Message>([^<]{1,200})</Message>)?")
_STATUS: Final = re.compile(r"status code: (\d{3}[^:\n]{0,40})")


Version = dict[str, str]
"""What names a version of an object."""


class Bucket:
    """Objects below one URL."""

    def __init__(self, url: str, config: Mapping[str, str] | None = None) -> None:
        """Speak to nobody yet.

        Args:
            url: `s3://bucket/prefix`, also `gs://…` and `az://…`.
            config: Credentials, endpoint and region in the client's words; what is not there
                is taken from the environment (`AWS_…`).
        """
        self.url = url.rstrip("/")
        self._config = dict(config or {})

    @cached_property
    def _client(self) -> "Client":
        # Made when it is used first: what it starts does not survive a fork.
        endpoints = [self._config.get("endpoint"), *map(os.environ.get, _ENDPOINTS)]
        # Whoever writes http:// has said that it is to be so.
        plain = next(filter(None, endpoints), "").startswith("http://")
        options: ClientConfig = {
            "timeout": PATIENCE,
            "connect_timeout": timedelta(seconds=3),
            "allow_http": plain,
        }
        certificates = os.environ.get("NIGHTCAP_STORE_CA")
        try:
            if certificates:
                options["root_certificate"] = Path(certificates).read_bytes()
            return from_url(
                self.url,
                config=cast("S3Config", self._config),
                client_options=options,
                retry_config={"max_retries": _MAX_RETRIES, "retry_timeout": PATIENCE},
            )
        except (BaseError, OSError, ValueError) as error:
            raise StoreFailed(f"{self.url} cannot be used: {_short(error)}") from error

    def create(self, path: str, body: bytes | memoryview) -> bool:
        """Create an object; False when there is one of that name."""
        with self._said("put", path):
            try:
                obstore.put(self._client, path, body, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def replace(self, path: str, body: bytes, version: Version) -> bool:
        """Replace an object; False when it is another version by now."""
        with self._said("put", path):
            try:
                obstore.put(
                    self._client, path, body, mode=cast("PutMode", version), use_multipart=False
                )
            except PreconditionError:
                return False
            return True

    def upload(self, path: str, pieces: Iterator[bytes]) -> None:
        """Write a large object piece by piece; there is nothing before there is all of it."""
        # Not an iterator given to `put`: it would be asked by the client's own threads, which
        # cannot wait for what they do themselves. Not `with`: that would complete half of it.
        with self._said("put", path):
            writer = obstore.open_writer(
                self._client, path, buffer_size=_PIECE_BYTES, max_concurrency=2
            )
        for piece in pieces:
            with self._said("put", path):
                writer.write(piece)
        with self._said("put", path):
            writer.close()

    def copy(self, path: str, to: str) -> None:
        """Copy an object, within the store.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with self._said("copy", path):
            obstore.copy(self._client, path, to)

    def get(self, path: str) -> tuple[bytes, Version]:
        """A small object, and its version for `replace`.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with self._said("get", path):
            result = obstore.get(self._client, path)
            meta = result.meta
            version = {"e_tag": meta["e_tag"], "version": meta["version"]}
            return bytes(result.bytes()), {name: text for name, text in version.items() if text}

    def read(self, path: str, begin: int, end: int) -> bytes:
        """The bytes of an object from `begin` up to `end`; it has them.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with self._said("get", path):
            return bytes(obstore.get_range(self._client, path, start=begin, end=end))

    def list(self, folder: str) -> Iterator[Found]:
        """All objects below a folder, by name."""
        with self._said("list", folder):
            for page in obstore.list(self._client, folder or None, chunk_size=_PAGE):
                for each in page:
                    at = each["last_modified"].timestamp()
                    yield Found(each["path"], each["size"], at, each["e_tag"])

    def folders(self, folder: str) -> tuple[str, ...]:
        """The names of the folders in a folder."""
        with self._said("list", folder):
            found = obstore.list_with_delimiter(self._client, folder or None)
            return tuple(sorted(path.rpartition("/")[2] for path in found["common_prefixes"]))

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error."""
        for begin in range(0, len(paths), _PAGE):
            with (
                self._said("delete", paths[begin]),
                contextlib.suppress(FileNotFoundError, NotFoundError),
            ):
                obstore.delete(self._client, paths[begin : begin + _PAGE])

    @contextlib.contextmanager
    def _said(self, what: str, path: str) -> Iterator[None]:
        """Turn the client's errors into ours."""
        try:
            yield
        except (StoreFailed, StoreFull):
            raise
        except (FileNotFoundError, NotFoundError) as error:
            if what == "put" or _NO_BUCKET.search(str(error)) or _UNKNOWN_TO_IT.search(str(error)):
                raise self._failed(what, path, error) from error
            raise FileNotFoundError(f"no object {path}") from error
        except (BaseError, OSError) as error:
            raise self._failed(what, path, error) from error

    def _failed(self, what: str, path: str, error: Exception) -> StoreFailed | StoreFull:
        sentence = f"object store: {what} {self.url}/{path.strip('/')}: {_short(error)}"
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            sentence += "; check the credentials and their rights"
        return StoreFull(sentence) if _FULL.search(str(error)) else StoreFailed(sentence)


def _short(error: Exception) -> str:
    """What the store said, without the client's own story."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if code is not None:
        return f"{code[1]}, {code[2]}" if code[2] else code[1]
    if status is not None:
        return status[1].strip()
    return text.partition("\n")[0].rpartition(" - ")[2][:200] or type(error).__name__
