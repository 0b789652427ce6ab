import pytest

from maskedclip_composer.callbacks.redaction import redact, redact_text


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
        ("failed for https://hunter2@host: no", "failed for https://***@host: no"),
        ("https://a.blob.core/x?sv=1&sig=hunter2&se=2", "https://a.blob.core/x?sv=1&sig=***&se=2"),
        ("s3://bucket/x?X-Amz-Signature=hunter2", "s3://bucket/x?X-Amz-Signature=***"),
        ("AccountName=a;AccountKey=hunter2==;Suffix=b", "AccountName=a;AccountKey=***;Suffix=b"),
    ],
)
def test_credentials_in_uris_are_hidden(text, hidden):
    assert redact_text(text) == hidden
    assert redact({"remote": text}) == {"remote": hidden}


@pytest.mark.parametrize("text", ["s3://bucket/a@b/c", "me@host.org", "design=4", "http://host/a?q=1"])
def test_other_text_is_unchanged(text):
    assert redact_text(text) == text
