"""Where the keys for a store come from: the environment, or the files of the AWS command line."""

import pytest

import imgdata
from imgdata.storage.remote import RemoteStore
from imgdata.storage.remote_errors import meaning
from imgdata.storage.remote_profile import profile_settings

CREDENTIALS = """
[default]
aws_access_key_id = D
aws_secret_access_key = DS

[lab]
aws_access_key_id = L
aws_secret_access_key = LS
aws_session_token = T
"""
CONFIG = """
[default]
region = eu-west-1

[profile lab]
region = us-west-2
endpoint_url = http://localhost:9000

[profile login]
sso_start_url = https://example.org
"""
DEFAULT = {"access_key_id": "D", "secret_access_key": "DS", "region": "eu-west-1"}
LAB = {
    "access_key_id": "L",
    "secret_access_key": "LS",
    "session_token": "T",
    "region": "us-west-2",
    "endpoint": "http://localhost:9000",
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "credentials").write_text(CREDENTIALS)
    (tmp_path / "config").write_text(CONFIG)
    return {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, DEFAULT),
        ({"AWS_PROFILE": "lab"}, LAB),
        ({"AWS_DEFAULT_PROFILE": "lab"}, LAB),
        ({"AWS_ACCESS_KEY_ID": "E"}, {}),  # the environment has keys: files are not read
        ({"AWS_SKIP_SIGNATURE": "true"}, {}),
    ],
)
def test_a_profile_gives_what_the_environment_has_not(files, variables, expected):
    assert profile_settings({**files, **variables}) == expected


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "AWS_PROFILE: profile 'none' is not in the file .*credentials"),
        ("login", "AWS_PROFILE: profile 'login' has no aws_access_key_id .*export-credentials"),
    ],
)
def test_a_profile_without_keys_is_one_line(files, name, said):
    with pytest.raises(imgdata.OptionError, match=said):
        profile_settings({**files, "AWS_PROFILE": name})


def test_a_damaged_file_is_named(files, tmp_path):
    (tmp_path / "config").write_text("no section = here")
    with pytest.raises(imgdata.OptionError, match="config: no configuration file of AWS"):
        profile_settings(files)


def test_without_files_there_is_nothing(tmp_path):
    assert profile_settings({"AWS_CONFIG_FILE": str(tmp_path / "a"), "AWS_SHARED_CREDENTIALS_FILE": "b"}) == {}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Exception("Server returned non-2xx status code: 500 Internal Server Error: x"), "again"),
        (Exception("Server returned non-2xx status code: 503 Slow Down"), "again"),
        (Exception("Server returned non-2xx status code: 429 Too Many Requests"), "again"),
        (Exception("Server returned non-2xx status code: 403 Forbidden"), "denied"),
        (Exception("Server returned non-2xx status code: 404 Not Found"), "missing"),
        (Exception("Server returned non-2xx status code: 416 Range Not Satisfiable"), "beyond"),
        (Exception("Server returned non-2xx status code: 301 Moved Permanently"), "refused"),
        (Exception("error sending request: connection reset by peer"), "again"),
        (Exception("Error performing PUT http://169.254.169.254/latest/api/token in 3s"), "no credentials"),
        (FileNotFoundError("ds/a not found"), "missing"),
        (PermissionError("no"), "denied"),
    ],
    ids=str,
)
def test_what_an_error_of_a_store_means(error, expected):
    assert meaning(error) == expected


def test_an_account_that_is_not_named_is_one_line(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(imgdata.OptionError, match=r"az://c/x: can't be opened .*set AZURE_STORAGE_ACCOUNT_NAME and"):
        RemoteStore("az://c/x").read("a")
