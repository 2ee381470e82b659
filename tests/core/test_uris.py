"""What is shown of a URI holds no secret, wherever one can stand; what is none stays as it is."""

from __future__ import annotations

import pytest

from beear_core.config import RegistryConfig, parse
from beear_core.errors import ConfigError
from beear_core.uris import has_secret, hide_secrets, uri_fault, without_secrets

URIS = {
    "password": "http://user:hunter2@host:5000/x",
    "token as the user's name": "https://hunter2@host/x",
    "slash in the password": "http://user:hun/ter2@host/x",
    "at in the password": "http://user:hun@ter2@host/x",
    "question mark in the password": "http://user:hun?ter2@host/x",
    "slash and at": "postgresql://user:hun/ter2@ter2@host/db",
    "slash in a token": "https://hun/ter2@host/x",
    "encoded": "postgresql+psycopg2://user:hun%2Fter2@host/db",
    "parameter": "postgresql://host/db?password=hunter2&sslmode=require",
    "token parameter": "https://host/x?api_token=hunter2",
    "both": "mysql://user:hunter2@host/db?ssl_key=ter2&a=b",
}
OPEN = [
    "http://host:5000/x",
    "sqlite:////data/a@b/mlflow.db",
    "sqlite:///mlflow.db?mode=ro",
    "s3://bucket/prefix",
    "models:/name@alias",
    "file:///a@b",
    "runs/mlflow.db",
    "https://host/x?experiment=3&a=b",
]


@pytest.mark.parametrize("uri", URIS.values(), ids=list(URIS))
def test_no_secret_is_shown(uri: str) -> None:
    shown = without_secrets(uri)
    assert "ter2" not in shown
    assert "hun" not in shown
    assert "host" in shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize("uri", OPEN)
def test_what_holds_none_is_shown_as_it_is(uri: str) -> None:
    assert without_secrets(uri) == uri
    assert not has_secret(uri)
    assert hide_secrets(f"cannot reach {uri} now", uri) == f"cannot reach {uri} now"


def test_parameters_that_are_no_secret_stay() -> None:
    assert without_secrets("postgresql://u:p@host/db?password=x&sslmode=require") == (
        "postgresql://host/db?password=***&sslmode=require"
    )


@pytest.mark.parametrize("uri", URIS.values(), ids=list(URIS))
@pytest.mark.parametrize("form", ["{uri}", "refused: {uri}/api/2.0 at {uri}", "'{uri}': no such host", "{parts}"])
def test_a_message_that_repeats_a_uri_whole_or_in_parts(uri: str, form: str) -> None:
    parts = " ".join(part for part in uri.replace("?", " ").replace("&", " ").split("://", 1)[1].rpartition("@"))
    text = hide_secrets(form.format(uri=uri, parts=parts), uri)
    assert "hunter2" not in text
    assert "hun/ter2" not in text
    assert "password=hunter2" not in text


def test_secrets_of_another_uri_in_a_message_are_hidden_too() -> None:
    text = hide_secrets("redirected to https://other:hunter2@proxy/x?token=ter2&page=2", "http://host")
    assert text == "redirected to https://proxy/x?token=***&page=2"


@pytest.mark.parametrize("uri", [u for n, u in URIS.items() if n not in {"slash in a token", "token as the user's name"}])
def test_a_configuration_that_holds_a_secret_is_refused_and_does_not_repeat_it(uri: str) -> None:
    assert has_secret(uri) or uri_fault(uri)
    with pytest.raises(ConfigError) as caught:
        parse(RegistryConfig, {"tracking_uri": uri}, "x.yaml")
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "fault"),
    [("http://host:port/", "Port could not be cast"), ("http://u:a/b@host", "percent-encoded"), ("http://host:1/", None)],
)
def test_a_port_that_is_none(uri: str, fault: str | None) -> None:
    found = uri_fault(uri)
    assert found is None if fault is None else fault in (found or "")
