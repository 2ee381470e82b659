"""Whatever Kubeflow answers, or does not, ends in one message with thing, value and remedy, and in exit code 1."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubeflow_command import IMAGE, Beear, Done
from kubeflow_server import ROOT, Answer, Dropped, Hook, Kubeflow, Request
from planted_secrets import Planted

from pipelines.kubeflow import answers

LOG_IN = b"<!DOCTYPE html><html><head><title>Log in to Dex</title></head><body>Log in</body></html>"


def told(message: str, code: int = 5) -> bytes:
    return json.dumps({"error": message, "code": code, "message": message, "details": []}).encode()


def at(path: str, answer: Answer | type[Exception], method: str = "GET") -> Hook:
    """What is answered to one kind of request."""

    def hook(request: Request) -> Answer | None:
        if (request.method, request.path) != (method, f"{ROOT}/{path}"):
            return None
        if isinstance(answer, Answer):
            return answer
        raise answer

    return hook


@pytest.fixture
def submit(beear: Beear, release: Path) -> Callable[..., Done]:
    return lambda *more: beear("submit", "--config", release, "--image", IMAGE, *more)


def error_of(done: Done) -> str:
    """The one line of an error that ends a command with exit code 1."""
    assert (done.code, done.out) == (1, ""), done
    (line,) = done.err.splitlines()
    assert line.startswith("error: Kubeflow Pipelines at http")
    return line


@pytest.mark.parametrize(
    ("answer", "said", "remedy"),
    [
        (
            Answer(told("no token"), 401),
            "with 401, it takes no such credentials (no credentials): no token;",
            "BEEAR_KFP_TOKEN",
        ),
        (Answer(b"RBAC: access denied", 403, "text/plain"), "with 403, this is not allowed with no cred", "--namespace"),
        (
            Answer(told("User x cannot create runs"), 403),
            "with no credentials: User x cannot create runs;",
            "BEEAR_KFP_TOKEN",
        ),
        (Answer(b"404 page not found", 404, "text/plain"), "with 404, its API is not there;", "--host is the address"),
        (Answer(told("Experiment e not found"), 404), "there is no such thing: Experiment e not found;", "names and ids"),
        (
            Answer(told("Already exist"), 409),
            "with 409, it is there already or somebody changes it: Already exist;",
            "run again",
        ),
        (Answer(told("cron is bad"), 400), "with 400: cron is bad;", "mend what it names"),
        (Answer(told("database is locked"), 500), "with 500: database is locked;", "log of its pod ml-pipeline"),
        (Answer(b"upstream connect error", 503, "text/plain"), "with 503;", "run again"),
        (Answer(b"\xff\xfe", 502, "text/html"), "with 502;", "log of its pod"),
        (Answer(LOG_IN, 200, "text/html"), "with a web page ('Log in to Dex') instead of JSON:", "BEEAR_KFP_COOKIES"),
        (Answer(LOG_IN, 200), "with a web page ('Log in to Dex') instead of JSON:", "BEEAR_KFP_COOKIES"),
        (Answer(b"<p>hello", 200, "text/html"), "with a web page instead of JSON:", "--host is the address"),
        (Answer(b"[1]", 200), "with '[1]' instead of JSON", "--host is the address"),
        (
            Answer(b"", 302, headers=(("Location", "/dex/auth?client_id=x&state=abcdefgh"),)),
            "with 302, a redirect to /dex/auth?client_id=x&state=abcdefgh: most likely it asks to log in",
            "BEEAR_KFP_COOKIES",
        ),
    ],
)
@pytest.mark.parametrize("path", ["healthz", "runs"])
def test_what_each_answer_is_told_as(
    server: Kubeflow, submit: Callable[..., Done], path: str, answer: Answer, said: str, remedy: str
) -> None:
    method = "GET" if path == "healthz" else "POST"
    server.before = at(path, answer, method)
    line = error_of(submit())
    assert f"answered {method} {ROOT}/{path} " in line
    assert said in line
    assert remedy in line
    unknown = "Whether it was carried out is not known" in line
    assert unknown == (method == "POST" and answer.status >= 500), line
    assert server.runs == {}


def test_a_run_whose_answer_was_lost_is_not_sent_twice(server: Kubeflow, submit: Callable[..., Done]) -> None:
    server.after = at("runs", Dropped, "POST")
    line = error_of(submit())
    assert f"broke off POST {ROOT}/runs (" in line
    assert "Whether it was carried out is not known: look with 'beear pipeline runs' before you try again" in line
    assert len(server.runs) == 1


def test_a_question_whose_answer_was_lost_is_asked_once_more(server: Kubeflow, submit: Callable[..., Done]) -> None:
    lost: list[Request] = []

    def hook(request: Request) -> Answer | None:
        if request.path.endswith("/healthz") and not lost:
            lost.append(request)
            raise Dropped
        return None

    server.before = hook
    done = submit()
    assert (done.code, done.err, len(lost)) == (0, "", 1)


@pytest.mark.parametrize(("path", "method", "asked"), [("healthz", "GET", 2), ("runs", "POST", 1)])
def test_what_does_not_answer(
    server: Kubeflow, submit: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, path: str, method: str, asked: int
) -> None:
    connect, answer = answers.LIMITS_S
    assert 2 * (connect + answer) < 60, "an error within a minute, asked twice"
    monkeypatch.setattr(answers, "LIMITS_S", (0.5, 0.5))
    gone = threading.Event()

    def hook(request: Request) -> Answer | None:
        if (request.method, request.path) == (method, f"{ROOT}/{path}"):
            gone.wait(20)
            raise Dropped
        return None

    server.before = hook
    began = time.monotonic()
    line = error_of(submit())
    gone.set()
    assert time.monotonic() - began < 10
    assert f"did not answer {method} {ROOT}/{path} within 0.5 s" in line
    assert ("Whether it was carried out is not known" in line) == (method == "POST")
    assert [r.path for r in server.asked].count(f"{ROOT}/{path}") == asked


def test_nothing_listens(beear: Beear) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        line = error_of(beear("runs", "--host", f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert "cannot be reached (" in line
    assert "check --host" in line


def test_a_host_that_no_name_server_knows(beear: Beear) -> None:
    assert "cannot be reached (" in error_of(beear("runs", "--host", "http://no-such-host.invalid"))


def test_a_certificate_that_nobody_vouches_for(beear: Beear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = own_certificate(tmp_path)
    with encrypted(certificate) as host:
        line = error_of(beear("runs", "--host", host))
        assert "has no certificate that can be trusted, so nothing was sent (" in line
        assert "SSL_CERT_FILE" in line
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        done = beear("runs", "--host", host, "--json")
        assert (done.code, done.out) == (0, "[]\n"), "and with it, it is asked"


def test_plain_text_where_https_was_asked_for(server: Kubeflow, beear: Beear) -> None:
    line = error_of(beear("runs", "--host", server.host.replace("http:", "https:")))
    assert "has no certificate that can be trusted" in line
    assert "or write http:// if it has none" in line


def test_an_answer_of_another_shape(server: Kubeflow, beear: Beear) -> None:
    server.before = at("runs", Answer(b'{"runs": 5}'))
    assert "answered with what KFP's client does not understand" in error_of(beear("runs"))
    server.before = at("runs", Answer(b'{"runs": [{"run_id": "1", "created_at": "yesterday-ish"}]}'))
    assert "answered with what KFP's client does not understand" in error_of(beear("runs"))


def test_a_run_without_an_id(server: Kubeflow, submit: Callable[..., Done]) -> None:
    server.before = at("runs", Answer(b"{}"), "POST")
    assert "gave no id; look for it there" in error_of(submit())


def test_the_token_of_the_environment(
    server: Kubeflow, submit: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEEAR_KFP_TOKEN", "Token-of-Ada\n")
    assert submit().code == 0
    assert {request.headers.get("authorization") for request in server.asked} == {"Bearer Token-of-Ada"}


def test_a_token_in_a_file_is_read_for_each_request(
    server: Kubeflow, submit: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))

    def renewed(request: Request) -> None:
        file.write_text("second-token\n")

    server.before = renewed
    assert submit().code == 0
    sent = [request.headers.get("authorization") for request in server.asked]
    assert (sent[0], set(sent[1:])) == ("Bearer first-token", {"Bearer second-token"})

    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "none"))
    done = submit()
    assert (done.code, f"no token can be read from {tmp_path / 'none'} (No such file" in done.err) == (2, True)


def test_cookies_of_a_log_in(server: Kubeflow, submit: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEEAR_KFP_COOKIES", "authservice_session=MTY5; other=1")
    assert submit().code == 0
    assert {request.headers.get("Cookie") for request in server.asked} == {"authservice_session=MTY5; other=1"}


def test_a_header_of_two_lines_is_refused_unseen(
    server: Kubeflow, submit: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BEEAR_KFP_TOKEN", "BEEAR_KFP_COOKIES"):
        monkeypatch.setenv(name, "Kq81\nLr92")
        done = submit()
        monkeypatch.delenv(name)
        assert (done.code, f"{name} holds a line break" in done.err, "Kq81" in done.err) == (2, True, False)
    assert server.asked == []


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 500])
@pytest.mark.parametrize("verb", ["submit", "schedule", "unschedule", "runs"])
def test_no_secret_is_shown_that_an_answer_repeats(
    server: Kubeflow, beear: Beear, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, verb: str
) -> None:
    planted = Planted()
    cookie, token = planted.secret("cookie", "="), planted.secret("token file")
    file = tmp_path / "token"
    file.write_text(token)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    monkeypatch.setenv("BEEAR_KFP_COOKIES", cookie)

    def repeat(request: Request) -> Answer | None:
        if request.path.endswith("/healthz"):
            return None
        given = f"{request.headers['authorization']} {request.headers['Cookie']}"
        page = f"<title>{given}</title>".encode()
        return Answer(page if status < 400 else told(given), status, headers=(("Location", f"/dex?x={token}"),))

    server.before = repeat
    more: dict[str, tuple[Any, ...]] = {
        "submit": ("--config", release, "--image", IMAGE),
        "schedule": ("--config", release, "--image", IMAGE, "--cron", "0 0 2 * * *"),
        "unschedule": ("--name", "x"),
        "runs": (),
    }
    done = beear(verb, *more[verb])
    assert "***" in error_of(done), "it was repeated"
    assert planted.leaks({"out": done.out.encode(), "err": done.err.encode()}) == []


def own_certificate(folder: Path) -> Path:
    """A certificate for the loopback and its key, in one file."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubeflow")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "kubeflow.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@contextmanager
def encrypted(certificate: Path) -> Iterator[str]:
    """A server that speaks TLS and says that there is nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(65536)
                    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    connection.sendall(head + b"Content-Length: 2\r\n\r\n{}")
            except OSError:
                plain.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"https://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
