import sys
import threading

import pytest

from maskedclip_composer.callbacks.build import _build_tracker
from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.callbacks.redaction import redact, redact_text, redact_tracebacks
from maskedclip_composer.errors import UserError, report


@pytest.mark.parametrize("key", ["token", "hf_token", "api-key", "aws_secret_access_key", "PASSWORD", "db.password"])
def test_values_of_secret_keys_are_hidden(key):
    assert redact({"a": [{key: "hunter2"}]}) == {"a": [{key: "***"}]}


def test_keys_that_merely_sound_like_secrets_are_kept():
    config = {"max_tokens": 77, "tokenizer": "bert", "num_tokens": "5", "token": None, "monkey": "x", "keys": "y"}
    assert redact(config) == config


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://me:hunter2@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg2://me:hunt@er2@host/db", "postgresql+psycopg2://***@host/db"),
        ("postgresql://me:hunt/er2@host/db", "postgresql://***@host/db"),
        ("postgresql://me:12/hunter2@host/db", "postgresql://***@host/db"),
        ("see.https://me:hunter2@host/a@b", "see.https://***@host/a@b"),
        ("Server=x;Pwd='hunt er 2';Uid=me", "Server=x;Pwd='***';Uid=me"),
        ('password="hunt\\"er 2" more', 'password="***" more'),
        ("tool --password 'hunt er 2' --verbose", "tool --password '***' --verbose"),
        ("password: 'hunt er 2', user: me", "password: '***', user: me"),
        ("failed for https://hunter2@host: no", "failed for https://***@host: no"),
        ("https://a.blob.core/x?sv=1&sig=hunter2&se=2", "https://a.blob.core/x?sv=1&sig=***&se=2"),
        ("s3://bucket/x?X-Amz-Signature=hunter2", "s3://bucket/x?X-Amz-Signature=***"),
        ("AccountName=a;AccountKey=hunter2==;Suffix=b", "AccountName=a;AccountKey=***;Suffix=b"),
    ],
)
def test_credentials_in_uris_are_hidden(text, hidden):
    assert redact_text(text) == hidden
    assert redact({"remote": text}) == {"remote": hidden}


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/a@b/c", "me@host.org", "design=4", "http://host/a?q=1", "http://host:5000/a@b", "mask_token = mean"],
)
def test_other_text_is_unchanged(text):
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter2.hunter2",
        "{'Authorization': 'AWS4-HMAC-SHA256 Credential=hunter2/20260101/s3, SignedHeaders=host, Signature=hunter2'}",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "aws_session_token = hunter2",
        "Server=x;Uid=me;Pwd=hunter2;",
        "postgresql://me:hunter2@host/db?password=hunter2",
        "https://x/y?access_token=hunter2&b=1",
        "https://x/y?AWSAccessKeyId=hunter2&Signature=hunter2&Expires=1",
        "composer train.py a.yaml tracking.password=hunter2",
        "tool --db-password hunter2 --verbose",
        "{'password': 'hunter2'}",
        '{"secret_key":"hunter2"}',
        "password: hunter2",
        "Set-Cookie: hunter2; path=/",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nhunter2, cut off",
    ],
)
def test_credentials_in_messages_and_command_lines_are_hidden(text):
    assert "hunter2" not in redact_text(f"it failed: {text}")
    assert "***" in redact_text(text)


@pytest.mark.parametrize(
    "token",
    [
        "AKIA" + "A1" * 8,
        "hf_" + "aB" * 17,
        "ghp_" + "aB" * 18,
        "github_pat_" + "aB" * 20,
        "glpat-" + "a-" * 10,
        "dapi" + "0a" * 16,
        "xoxb-" + "1a" * 10,
        "AIza" + "a-" * 17,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dozjgNryP4J3",
    ],
)
def test_tokens_are_known_by_their_form(token):
    assert redact({"remote": f"x {token} y", "list": [token]}) == {"remote": "x *** y", "list": ["***"]}


def test_secrets_of_the_environment_are_hidden_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalr/UtnFEMI+bPxRf")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json")  # a file, no secret
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "hunter2hunter2")
    monkeypatch.setenv("SOME_TOKEN", "true")
    text = "signed with wJalr/UtnFEMI+bPxRf from /home/me/key.json: true hunter2hunter2"
    assert redact_text(text) == "signed with *** from /home/me/key.json: true hunter2hunter2"


def test_all_below_a_secret_key_is_hidden_and_numbers_only_of_passwords():
    config = {"password": {"value": "hunter2", "list": ["a"]}, "authToken": "x", "db_password1": "y", "pin": 1234}
    assert redact(config) == {
        "password": {"value": "***", "list": ["***"]},
        "authToken": "***",
        "db_password1": "***",
        "pin": "***",
    }
    kept = {"mask_token_id": 103, "token": 4, "password": None, "secret": False, "pad_tokens": "x", "key": "k"}
    assert redact(kept) == kept


def test_what_users_and_logs_see_of_an_error_is_redacted(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    assert report(UserError("http://me:hunter2@host does not answer"), "train.py") == 2
    redact_tracebacks()
    try:
        raise ConnectionError("API request to http://me:hunter2@host/api failed") from ValueError("token=hunter2")
    except ConnectionError as error:
        sys.excepthook(ConnectionError, error, error.__traceback__)
    thread = threading.Thread(target=lambda: int("http://me:hunter2@host"))
    thread.start()
    thread.join()
    printed = capsys.readouterr().err
    assert "hunter2" not in printed.replace('int("http://me:hunter2@host")', "")  # its source is this file
    assert printed.count("http://***@host") >= 3
    assert "test_redaction.py" in printed
    assert "The above exception was the direct cause" in printed


def test_tokens_of_texts_are_settings_and_those_that_open_doors_are_hidden():
    kept = {"mask_token": "mean", "model.pad_token": "[PAD]", "clsToken": "[CLS]"}
    assert redact(kept) == kept
    text = "mask_token=mean model.cls_token='[CLS]' hf_token=hunter2 launchpad_token=hunter2 unmask_token: x"
    assert redact_text(text) == text.replace("hunter2", "***")


def test_a_key_that_begins_with_a_slash_is_no_file(monkeypatch, tmp_path):
    key = tmp_path / "key.json"
    key.touch()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/Jalr/UtnFEMI+bPxRf")
    monkeypatch.setenv("KEY_CREDENTIALS", str(key))
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "none"))
    assert redact_text(f"/Jalr/UtnFEMI+bPxRf {key} {tmp_path}/none") == f"*** {key} {tmp_path}/none"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part",
    [
        "a",
        "--a",
        "--",
        "-",
        "_",
        "a_",
        "a.",
        "eyJ-",
        "eyJaaaaaaaaaa.",
        "://a",
        "://a:b",
        "x://a:/",
        "--token ",
        "token=",
        "'",
        "-----BEGIN ",
        "bearer ",
        "authorization: ",
        "password='",
        'password: "',
        'token" ',
        "AKIA",
        "xoxb-",
        " ",
        "sk-",
    ],
)
def test_a_long_text_is_gone_through_once(part):
    """An expression that begins anew at every letter takes minutes; so the time limit is the test."""
    redact_text(part * (200_000 // len(part)))


def test_tags_for_mlflow_are_redacted(tmp_path):
    config = TrackingConfig(tags={"api_key": "hunter2", "paper": "yes", "at": "https://me:hunter2@host"})
    tracker = _build_tracker(config, "a", tmp_path, tmp_path, tmp_path / "metrics.jsonl")
    assert tracker.tags == {"api_key": "***", "paper": "yes", "at": "https://***@host"}
