"""Where a download connects to, for how long, and what it takes: on real sockets.

facts/security.md, section 4. Which addresses are listed at all is in tests/test_http.py.
"""

import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.errors import RejectedError, RetryableError
from connectors import http, public_only

INSIDE = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.1.2.3", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
    "2001:db8::1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "::169.254.169.254", "64:ff9b::169.254.169.254", "64:ff9b::8.8.8.8", "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1", "not an address", "",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "52.95.110.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_not_public(address: str) -> None:
    assert not public_only.is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_outside_is_public(address: str) -> None:
    assert public_only.is_public(address)


@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=6, network="fc00::/7"))
def test_no_private_address_is_public(address: Any) -> None:
    assert not public_only.is_public(str(address))


@given(st.ip_addresses(v=4).filter(lambda a: not public_only.is_public(str(a))))
def test_an_inner_address_written_as_ipv6_is_not_public(address: Any) -> None:
    assert not public_only.is_public(f"::ffff:{address}")
    assert not public_only.is_public(f"64:ff9b::{address}")


# Looking up


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names have these addresses, one answer after the other; returns what was looked up."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if not isinstance(host, str) or host[:1].isdigit() or ":" in host:
            return real(host, port, *args, **more)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        kind = socket.AF_INET6 if ":" in found[0] else socket.AF_INET
        return [(kind, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that were connected to; nothing is there."""
    found: list[str] = []

    def dial(self: socket.socket, address: Any) -> None:
        found.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", dial)
    return found


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "127.0.0.1", "fd00:ec2::254"])
def test_a_listed_name_that_points_inside_is_not_connected_to(
    address: str, monkeypatch: pytest.MonkeyPatch, dialled: list[str]
) -> None:
    resolving(monkeypatch, [address])
    with pytest.raises(RejectedError, match="not public"):
        http.download("https://api.twilio.com/x", hosts=("api.twilio.com",))
    assert dialled == []


def test_one_inner_address_among_others_is_enough(
    monkeypatch: pytest.MonkeyPatch, dialled: list[str]
) -> None:
    resolving(monkeypatch, ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(RejectedError, match="not public"):
        http.download("https://api.twilio.com/x", hosts=("api.twilio.com",))
    assert dialled == []


def test_the_address_that_was_checked_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch, dialled: list[str]
) -> None:
    """DNS rebinding: the second answer points inside, and is never asked for."""
    asked = resolving(monkeypatch, ["8.8.8.8"], ["169.254.169.254"])
    with pytest.raises(RetryableError):
        http.download("https://api.twilio.com/x", hosts=("api.twilio.com",))
    assert asked == ["api.twilio.com"]
    assert dialled == ["8.8.8.8"]


def test_a_name_that_is_not_known_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(RetryableError):
        http.download("https://api.twilio.com/x", hosts=("api.twilio.com",))


def test_what_is_listed_as_local_stays_local(
    monkeypatch: pytest.MonkeyPatch, dialled: list[str]
) -> None:
    resolving(monkeypatch, ["8.8.8.8"])
    with pytest.raises(RejectedError):
        http.download("http://localhost:8700/x", hosts=("localhost:8700",))
    assert dialled == []


def test_no_proxy_of_the_environment_is_asked(
    monkeypatch: pytest.MonkeyPatch, dialled: list[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    resolving(monkeypatch, ["8.8.8.8"])
    with pytest.raises(RetryableError):
        http.download("https://api.twilio.com/x", hosts=("api.twilio.com",))
    assert dialled == ["8.8.8.8"]


# What is taken

Talk = Callable[[socket.socket], None]


@contextmanager
def serving(talk: Talk, *, greeted: bool = True) -> Iterator[tuple[str, str]]:
    """A server on loopback that talks once the request is there: (its host, an address on it)."""
    stop = threading.Event()

    def serve(server: socket.socket) -> None:
        while not stop.is_set():
            try:
                line, _ = server.accept()
            except OSError:
                return
            with line:
                try:
                    if greeted:
                        line.recv(65536)
                    talk(line)
                except OSError:  # the other side hung up
                    continue

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        try:
            yield host, f"http://{host}/file"
        finally:
            stop.set()
            server.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)


def answering(*pieces: bytes) -> Talk:
    def talk(line: socket.socket) -> None:
        for piece in pieces:
            line.sendall(piece)

    return talk


def dripping(start: bytes, piece: bytes) -> Talk:
    """Sends something every now and then, for ever."""

    def talk(line: socket.socket) -> None:
        line.sendall(start)
        while True:
            line.sendall(piece)
            threading.Event().wait(0.01)

    return talk


@contextmanager
def serving_tls(talk: Talk, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """The same over TLS; and where its certificate lies."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2025, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2045, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "both.pem").write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")

    def over_tls(line: socket.socket) -> None:
        with context.wrap_socket(line, server_side=True) as wrapped:
            wrapped.recv(65536)
            talk(wrapped)

    with serving(over_tls, greeted=False) as (host, _):
        yield host, f"https://localhost:{host.partition(':')[2]}/file", tmp_path / "ca.pem"


HEAD = b"HTTP/1.1 200 OK\r\n"


def test_a_file_is_taken_as_it_comes() -> None:
    with serving(answering(HEAD + b"Content-Length: 4\r\n\r\n", b"ab", b"cd")) as (host, url):
        assert http.download(url, hosts=(host,)) == b"abcd"
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
    with serving(answering(chunked)) as (host, url):
        assert http.download(url, hosts=(host,)) == b"abcd"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
        (HEAD + b"\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (HEAD, b"X: y\r\n"),
        (HEAD, b"y"),
        (b"", b"H"),
    ],
    ids=["body", "endless body", "chunks", "headers", "a header", "status"],
)
def test_a_slow_sender_is_hung_up_on(start: bytes, piece: bytes) -> None:
    with serving(dripping(start, piece)) as (host, url), pytest.raises(RetryableError):
        http.download(url, hosts=(host,), max_seconds=0.3)


def test_over_tls_the_name_is_checked_and_a_slow_sender_hung_up_on(tmp_path: Path) -> None:
    slow = dripping(HEAD + b"Content-Length: 100000\r\n\r\n", b"x")
    with serving_tls(slow, tmp_path) as (_, url, ca):
        with public_only.session(0.3, local=True) as session:
            session.verify = str(ca)
            with pytest.raises(requests.RequestException):
                assert session.get(url).content
        with (
            public_only.session(5, local=True) as session,
            pytest.raises(requests.exceptions.SSLError),
        ):
            session.get(url)  # a certificate of nobody
        with public_only.session(5, local=True) as session:
            session.verify = str(ca)
            with pytest.raises(requests.exceptions.SSLError):
                session.get(url.replace("localhost", "127.0.0.1"))  # of another name


def test_a_silent_sender_is_hung_up_on() -> None:
    hold = threading.Event()

    def silent(line: socket.socket) -> None:
        hold.wait(5)

    with serving(silent) as (host, url):
        with pytest.raises(RetryableError):
            http.download(url, hosts=(host,), max_seconds=0.3)
        hold.set()


def test_a_file_that_is_too_long_is_cut_off() -> None:
    endless = dripping(HEAD + b"\r\n", b"x" * 65536)
    with serving(endless) as (host, url), pytest.raises(RejectedError, match="over 100000"):
        http.download(url, hosts=(host,), max_bytes=100_000)


def test_a_bomb_is_cut_off_at_the_same_length() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with (
        serving(answering(head, bomb)) as (host, url),
        pytest.raises(RejectedError, match="over 100000"),
    ):
        http.download(url, hosts=(host,), max_bytes=100_000)


def test_no_compression_is_asked_for_and_nothing_of_ours_is_told() -> None:
    heard: list[bytes] = []

    def hear(line: socket.socket) -> None:
        line.sendall(HEAD + b"Content-Length: 0\r\n\r\n")

    with serving(hear) as (host, url):
        made = public_only.session(5, local=True)
        made.hooks["response"] = [lambda r, **_: heard.append(str(r.request.headers).encode())]
        with made:
            made.get(url)
        assert http.download(url, hosts=(host,)) == b""
    assert b"identity" in heard[0]


def test_a_redirect_inside_is_not_followed() -> None:
    for place in (b"http://169.254.169.254/", b"https://10.0.0.1/", b"http://127.0.0.1:1/", b"/x"):
        answer = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % place
        with serving(answering(answer)) as (host, url), pytest.raises(RejectedError):
            http.download(url, hosts=(host,), redirect_hosts=("cdn.example",))


def test_a_file_cut_off_by_its_server_is_not_a_whole_file() -> None:
    cut = answering(HEAD + b"Content-Length: 10\r\n\r\nabc")
    with serving(cut) as (host, url), pytest.raises(RetryableError):
        http.download(url, hosts=(host,))
