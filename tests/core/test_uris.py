"""What is shown of a URI holds no secret, wherever one can stand; what is none stays as it is."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beear_core.config import RegistryConfig, parse
from beear_core.errors import ConfigError, StorageError
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


@pytest.mark.parametrize("uri", URIS.values())
def test_a_configuration_that_holds_a_secret_is_refused_and_does_not_repeat_it(uri: str) -> None:
    assert has_secret(uri) or uri_fault(uri)
    with pytest.raises(ConfigError) as caught:
        parse(RegistryConfig, {"tracking_uri": uri}, "x.yaml")
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("http://host:port/", "a number from 0 to 65535"),
        ("http://u:a/b@host", "percent-encoded"),
        ("http://host:1/", None),
    ],
)
def test_a_port_that_is_none(uri: str, fault: str | None) -> None:
    found = uri_fault(uri)
    assert found is None if fault is None else fault in (found or "")


AWKWARD = "abZ09/@#?%:&;= '\"\\<>äß\u2028\t+[]"
SECRETS = st.text(AWKWARD, min_size=1, max_size=40)
# between the marks of parameters no library could tell a secret from the next parameter
VALUES = st.text(AWKWARD.translate(dict.fromkeys(map(ord, "&;#?=@"))), min_size=1, max_size=40)
USERS = ["http://{}@host:5000/x", "http://user:{}@host/x?a=b", "postgresql+psycopg2://user:{}@/db?host=/s", "user:{}@host"]
PARAMETERS = ["https://host/x?api_token={}", "postgresql:///db?host=/s&user={}&a=b", "sqlite:////a/b.db?password={}#x"]
ENCODED = [*USERS[:3], "https://host?a=b;token={}&c=d", "postgresql:///db?sslpassword={}", "s3://{}@bucket/x"]


def told_apart(form: str, one: str, other: str, encode: bool) -> list[str]:
    """What is shown of two URIs that differ in their secret alone; where this is the same, it tells nothing of either."""
    return [without_secrets(form.format(quote(secret, safe="") if encode else secret)) for secret in (one, other)]


@given(form=st.sampled_from(USERS[:3]), one=SECRETS, other=SECRETS)
def test_what_is_shown_does_not_depend_on_user_and_password(form: str, one: str, other: str) -> None:
    shown, again = told_apart(form, one, other, encode=False)
    assert shown == again


@given(form=st.sampled_from(PARAMETERS), one=VALUES, other=VALUES)
def test_what_is_shown_does_not_depend_on_a_parameter(form: str, one: str, other: str) -> None:
    shown, again = told_apart(form, one, other, encode=False)
    assert shown == again


@given(form=st.sampled_from(ENCODED), one=SECRETS, other=SECRETS)
def test_what_is_shown_does_not_depend_on_an_encoded_secret(form: str, one: str, other: str) -> None:
    shown, again = told_apart(form, one, other, encode=True)
    assert shown == again


HEX = st.text("0123456789abcdef", min_size=12, max_size=12)


@given(
    form=st.sampled_from([*USERS, *PARAMETERS[:2]]),
    pieces=st.lists(HEX, min_size=1, max_size=3),
    between=st.sampled_from("/@#?%: '\"\\"),
    written=st.sampled_from([str, repr, quote, quote_plus, unquote, html.escape, json.dumps, str.strip]),
    message=st.sampled_from(["{uri}", "cannot reach '{uri}/x': {uri}", "password {secret} is wrong", "no host {piece}@x"]),
)
def test_a_message_holds_no_piece_of_a_secret(
    form: str, pieces: list[str], between: str, written: Callable[[str], str], message: str
) -> None:
    between = between if form in USERS else " "
    secret = between.join(pieces)
    uri = form.format(secret)
    text = written(message.format(uri=uri, secret=secret, piece=pieces[-1]))
    hidden = hide_secrets(text, uri)
    # before a colon stands a user's name, which is no secret where a password follows; in a URI it is hidden all the same
    named = between == ":" and "://{}" in form and "{secret}" in message
    assert not [piece for piece in pieces[1 if named and len(pieces) > 1 else 0 :] if piece in hidden], hidden


HOSTS = st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z]{2,5})?(:[1-9][0-9]{0,3})?", fullmatch=True)
PATHS = st.from_regex(r"(/[A-Za-z0-9._~%-]{1,8}){0,3}", fullmatch=True)
QUERIES = st.sampled_from(["", "?sslmode=require", "?experiment=3&a=b", "#/experiments/0", "?charset=utf8mb4;a=b"])


@given(
    scheme=st.sampled_from(["http", "https", "postgresql+psycopg2", "s3", "mysql"]), host=HOSTS, path=PATHS, query=QUERIES
)
def test_a_uri_without_a_secret_stays_as_it_is(scheme: str, host: str, path: str, query: str) -> None:
    uri = f"{scheme}://{host}{path}{query}"
    assert without_secrets(uri) == uri
    assert not has_secret(uri)
    text = f"cannot reach {uri} ({uri}): timed out; see {uri}, then '{uri}'."
    assert hide_secrets(text, uri) == text


class TestTheEnvironment:
    """What variables hold is hidden in every message and every error, wherever it comes from."""

    @pytest.fixture(autouse=True)
    def full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "gatekeeper")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hun/ter2")
        monkeypatch.setenv("HF_TOKEN", "hf_hunter3\n")
        monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter4@proxy:3128")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "me:hunter5@store:9000")
        monkeypatch.setenv("JAVA_OPTS", "-Dx=1 -Dproxy=http://me:hunter6@proxy -Dy=2")
        monkeypatch.setenv("BEEAR_NOTIFY", "slack://hunter7/x, json://hunter8")

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("password hun/ter2", "password ***"),
            ("hun%2Fter2", "***"),
            ("Authorization: Basic Z2F0ZWtlZXBlcjpodW4vdGVyMg==", "Authorization: Basic ***"),
            ("bad header b'Bearer hf_hunter3\\n'", "bad header b'Bearer ***'"),
            ("by http://me:hunter4@proxy:3128/", "by http://proxy:3128/"),
            ("Invalid endpoint: me:hunter5@store:9000", "Invalid endpoint: store:9000"),
            ("hunter6 is wrong", "*** is wrong"),
            ("slack://hunter7/x and json://hunter8", "slack://*** and json://***"),
        ],
    )
    def test_it_is_hidden(self, text: str, shown: str) -> None:
        assert hide_secrets(text) == shown
        assert str(StorageError(text)) == shown
        assert ConfigError("x", [text]).faults == (shown,)

    def test_a_password_that_is_a_word_tears_no_other_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DB_PASSWORD", "toy")
        monkeypatch.setenv("PGPASSWORD", "model")
        assert hide_secrets("model_version of toymodel: model") == "model_version of toymodel: ***"

    def test_what_is_json_stays_json(self) -> None:
        told = json.dumps({"a": 'see "http://me:hunter9@host/x?token=abc" and ?key="x"', "b": ["?key=a\\"]})
        assert json.loads(hide_secrets(told))["a"] == 'see "http://host/x?token=***" and ?key="x"'

    def test_switches_and_short_values_are_no_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
        monkeypatch.setenv("USE_TOKEN", "false")
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", "loud")
        text = "1 of 11 is false, and loud"
        assert hide_secrets(text) == text
