"""The environment -> settings of a client of S3's, Google's or Azure's store, beside those that obstore finds itself.

obstore reads `AWS_*`, `GOOGLE_*` and `AZURE_*`. What is missing are files of the AWS command line, the variables by
which the other programs of a cloud find its emulator, and plain http for an endpoint that names it.
"""

import json
from collections.abc import Mapping
from typing import Any

from imgdata.errors import OptionError
from imgdata.storage.remote_profile import profile_settings

AMAZON, GOOGLE = frozenset(("s3", "s3a")), frozenset(("gs",))
AZURE = frozenset(("az", "adl", "azure", "abfs", "abfss"))
"""Schemes of URLs."""
_CONNECTION = {
    "AccountName": ("account_name", "AZURE_STORAGE_ACCOUNT_NAME"),
    "AccountKey": ("account_key", "AZURE_STORAGE_ACCOUNT_KEY"),
    "SharedAccessSignature": ("sas_key", "AZURE_STORAGE_SAS_TOKEN"),
    "BlobEndpoint": ("endpoint", "AZURE_STORAGE_ENDPOINT"),
}
"""Word of a connection string -> setting of obstore, variable that hides it."""
_TRUE = ("1", "true", "yes", "on")


def client_settings(scheme: str, endpoint: str | None, environment: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    """Return settings of obstore for a scheme, and whether plain http is allowed. Raises `OptionError`."""
    if scheme in AMAZON:
        settings = _amazon(endpoint, environment)
        return settings, _is_plain(settings.get("endpoint"))
    if endpoint is not None:
        raise OptionError(f"endpoint must be left out for {scheme}://, got {endpoint!r}; it is for s3://")
    if scheme in GOOGLE:
        return _google(environment)
    if scheme in AZURE:
        return _azure(environment)
    return {}, scheme == "http"


def _amazon(endpoint: str | None, environment: Mapping[str, str]) -> dict[str, Any]:
    settings = dict(profile_settings(environment))
    endpoint = endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if endpoint is not None:
        settings["endpoint"] = endpoint
    if "AWS_REGION" not in environment and "AWS_DEFAULT_REGION" not in environment:
        settings.setdefault("region", "us-east-1")
    return settings


def _google(environment: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    emulator = environment.get("STORAGE_EMULATOR_HOST")
    if not emulator:
        return {}, _is_plain(environment.get("GOOGLE_BASE_URL"))
    address = (emulator if "://" in emulator else f"http://{emulator}").rstrip("/")
    # Without a key obstore asks the servers of Google's machines for one, also where requests are not signed.
    key = {"gcs_base_url": address, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"service_account_key": json.dumps(key)}, _is_plain(address)


def _azure(environment: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    text = environment.get("AZURE_STORAGE_CONNECTION_STRING", "")
    words = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    if text and not words:
        raise OptionError(
            "AZURE_STORAGE_CONNECTION_STRING must be such as AccountName=NAME;AccountKey=KEY, as Azure's portal shows"
        )
    settings: dict[str, Any] = {
        setting: words[word]
        for word, (setting, variable) in _CONNECTION.items()
        if word in words and variable not in environment
    }
    if words.get("UseDevelopmentStorage", "").lower() in _TRUE:
        settings["use_emulator"] = True
    endpoint = (
        settings.get("endpoint") or environment.get("AZURE_STORAGE_ENDPOINT") or environment.get("AZURE_ENDPOINT")
    )
    emulated = settings.get("use_emulator") or environment.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in _TRUE
    return settings, bool(emulated) or _is_plain(endpoint)


def _is_plain(address: str | None) -> bool:
    return address is not None and address.startswith("http://")
