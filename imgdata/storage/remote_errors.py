"""What a store's library raises -> what it means: try again, or an error that says what to do."""

import re
from typing import Literal

Meaning = Literal["again", "missing", "denied", "changed", "conflict", "beyond", "no credentials", "refused"]
"""`again`: may work in a moment. `changed`: the object has another ETag. `conflict`: there is one already. `beyond`:
the object ends before the range. `refused`: will not work."""

_STATUS = re.compile(r"non-2xx status code: (\d{3})|status_code: (\d{3})")
_AGAIN = frozenset((408, 425, 429))
_BY_STATUS: dict[int, Meaning] = {
    401: "denied",
    403: "denied",
    404: "missing",
    410: "missing",
    409: "conflict",
    412: "changed",
    416: "beyond",
}
_BY_NAME: dict[str, Meaning] = {
    "AlreadyExistsError": "conflict",
    "FileNotFoundError": "missing",
    "InvalidPathError": "refused",
    "NotFoundError": "missing",
    "NotSupportedError": "refused",
    "PermissionDeniedError": "denied",
    "PermissionError": "denied",
    "PreconditionError": "changed",
    "UnauthenticatedError": "denied",
    "UnknownConfigurationKeyError": "refused",
}
_METADATA_HOSTS = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "metadata/identity")
"""Hosts that are asked for credentials where the environment has none."""
_MAX_CHARS = 300
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
    "AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to a key's file, or run `gcloud auth application-default login`; "
    "GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING; "
    "AZURE_SKIP_SIGNATURE=true for a public container",
}
_SAME = {"s3a": "s3", "adl": "az", "azure": "az", "abfs": "az", "abfss": "az"}


def meaning(error: Exception) -> Meaning:
    """Return what an error of a request means."""
    text = str(error)
    if any(host in text for host in _METADATA_HOSTS):
        return "no credentials"
    status = status_of(text)
    if status is not None:
        return "again" if (status >= 500 and status != 501) or status in _AGAIN else _BY_STATUS.get(status, "refused")
    return _BY_NAME.get(type(error).__name__, "again")


def status_of(text: str) -> int | None:
    """Return the HTTP status that an error names."""
    found = _STATUS.search(text)
    return int(found[1] or found[2]) if found else None


def reason_of(error: Exception) -> str:
    """Return an error's text for people, on one line: the server's answer, without the library's own structures."""
    text = str(error).partition("\n\nDebug source")[0]
    text = " ".join(text.split())
    return text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS] + "..."


def credentials_of(scheme: str) -> str:
    """Return how a user gives the credentials for the stores of a scheme."""
    return _CREDENTIALS.get(_SAME.get(scheme, scheme), "check the credentials of this kind of store")
