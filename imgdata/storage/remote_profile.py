"""The files of the AWS command line, `~/.aws/credentials` and `~/.aws/config` -> settings of a client."""

import configparser
from collections.abc import Mapping
from pathlib import Path

from imgdata.errors import OptionError

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
"""Key of a profile -> setting of obstore."""


def profile_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the profile `AWS_PROFILE`, or of `default`; none where the environment has a key.

    Raises `OptionError` where `AWS_PROFILE` names no profile, or one without keys, such as of SSO.
    """
    if "AWS_ACCESS_KEY_ID" in environment or environment.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        return {}
    name = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    home = Path("~/.aws").expanduser()
    credentials = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials").expanduser()
    config = Path(environment.get("AWS_CONFIG_FILE") or home / "config").expanduser()
    profile = name or "default"
    section = "default" if profile == "default" else f"profile {profile}"
    found = {**_section(config, section), **_section(credentials, profile)}
    settings = {setting: found[key] for key, setting in _KEYS.items() if key in found}
    if name is not None and "access_key_id" not in settings:
        what = "has no aws_access_key_id" if found else "is not in the file"
        raise OptionError(
            f"AWS_PROFILE: profile {name!r} {what} ({credentials}); write its keys there, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY (of a login by SSO: `aws configure export-credentials --format env`)"
        )
    return settings


def _section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: no configuration file of AWS ({str(error).splitlines()[0]}); mend it") from error
    return dict(parser[name]) if parser.has_section(name) else {}
