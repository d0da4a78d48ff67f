"""The real server as a hostile network meets it: slow, unfinished and broken requests hold nothing others need."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, suppress

import httpx
import pytest
from sqlalchemy import func, select

from broker.identity.http import SESSION_COOKIE
from broker.models import Event
from broker.runtime.parts import Parts
from broker.web import connections, limits
from tests.support.serving import PATIENCE, Served, is_problem, read_to_end
from tests.support.world import World

FORM = ("POST /oauth/token", "Content-Type: application/x-www-form-urlencoded")


def test_dual_stack_server_sees_peer_addresses(served: Served) -> None:
    """Who comes by IPv4 to an IPv6 socket is loopback, a trusted proxy or a stranger as on an IPv4 one."""
    assert httpx.get(f"http://127.0.0.1:{served.port}/metrics").status_code == 200, "this machine, as ::ffff:127.0.0.1"
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as proxy:
        passed = {"Host": f"localhost:{served.port}", "X-Forwarded-For": "::ffff:203.0.113.77"}
        assert proxy.get(f"http://127.0.0.1:{served.port}/sign-in", headers=passed).status_code == 200
    spoofed = {"Host": f"localhost:{served.port}", "X-Forwarded-For": "203.0.113.78"}
    httpx.get(f"http://127.0.0.1:{served.port}/sign-in", headers=spoofed)
    seen = [line.get("address") for line in served.lines() if line.get("event") == "request"]
    assert "203.0.113.77" in seen and "127.0.0.1" in seen and "203.0.113.78" not in seen
    assert not any(str(address).startswith("::ffff") for address in seen)


def test_slow_request_head_times_out(served: Served) -> None:
    with closing(served.connect()) as silent, closing(served.connect()) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        began = time.monotonic()
        is_problem(read_to_end(slow), 408, "too_slow")
        assert read_to_end(silent) == b"", "who sent nothing is told nothing"
        assert time.monotonic() - began >= connections.HEAD_SECONDS - 1


@pytest.mark.parametrize(
    ("start", "kind", "length"),
    [
        ("POST /oauth/token", "application/x-www-form-urlencoded", "Content-Length: 200000"),
        ("POST /oauth/token", "application/x-www-form-urlencoded", "Transfer-Encoding: chunked"),
        ("POST /api/v1/leases", "application/json", "Content-Length: 200000"),
    ],
)
def test_slow_request_body_times_out(served: Served, start: str, kind: str, length: str) -> None:
    with closing(served.connect()) as slow:
        slow.sendall(served.head(start, f"Content-Type: {kind}", length))
        began = time.monotonic()
        slow.settimeout(0.5)
        answer = b""
        while not answer and time.monotonic() - began < PATIENCE:
            try:
                slow.sendall(b"1\r\na\r\n" if "chunked" in length else b"a")
                answer = slow.recv(65536)
            except TimeoutError:
                continue
        assert time.monotonic() - began >= limits.FIRST_SECONDS - 1
        is_problem(answer + read_to_end(slow), 408, "too_slow")


def test_slow_clients_do_not_block_others(served: Served) -> None:
    """Two hundred slow bodies and heads from one address: others are answered meanwhile, most are not even kept."""
    with ExitStack() as held:
        slow = []
        head = served.head(*FORM, "Content-Length: 1000")
        for at in range(200):
            raw = held.enter_context(closing(served.connect()))
            slow.append(raw)
            with suppress(OSError):  # refused already: that is what this is about
                raw.sendall(head if at < 100 else head[:30])
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.3"), timeout=PATIENCE) as other:
            for _ in range(5):
                address = f"http://127.0.0.1:{served.port}"
                assert other.get(f"{address}/sign-in", headers={"Host": f"localhost:{served.port}"}).status_code == 200
        answers = [read_to_end(raw) for raw in slow]
    told = [answer.split(b" ")[1] for answer in answers if answer]
    assert told.count(b"408") and told.count(b"429"), "some waited in vain, the rest were too many at once"
    assert told.count(b"408") <= connections.MOST_WITHOUT_HEAD + limits.MOST_AT_ONCE


def test_data_after_the_answer_is_discarded(served: Served) -> None:
    """The body of a request that was answered without it: the connection ends all the same."""
    with closing(served.connect()) as raw:
        raw.sendall(served.head("POST /nonesuch", "Content-Length: 100000"))
        raw.settimeout(1)
        began, ended, got = time.monotonic(), False, b""
        while not ended and time.monotonic() - began < PATIENCE:
            try:
                raw.sendall(b"a")
                part = raw.recv(65536)
                got, ended = got + part, not part
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended and b" 404 " in got.split(b"\r\n")[0]


def events(parts: Parts) -> int:
    """How many events there are."""
    with parts.database.transaction() as tx:
        return tx.scalars(select(func.count()).select_from(Event)).one()


def test_client_disconnect_during_the_body_is_not_an_internal_error(served: Served, world: World, parts: Parts) -> None:
    """Neither an error, nor a traceback, nor an event, whoever reads the body and whoever sends it."""
    signed = world.person()
    someone = f"Authorization: {signed.headers['Authorization']}"
    cookie = f"Cookie: {SESSION_COOKIE}={world.session(signed)}"
    before = events(parts)
    for start, kind in (
        ("POST /oauth/token", "application/x-www-form-urlencoded"),
        ("POST /api/v1/leases", "application/json"),
        ("POST /security/notices", "application/x-www-form-urlencoded"),
        ("POST /notices/read", "multipart/form-data; boundary=x"),
    ):
        for length in ("Content-Length: 1000", "Transfer-Encoding: chunked"):
            with closing(served.connect()) as raw:
                known = someone if "/api/" in start else cookie
                raw.sendall(served.head(start, f"Content-Type: {kind}", length, known))
                raw.sendall(b'5\r\n{"a":\r\n' if "chunked" in length else b'{"a":')
    assert httpx.get(f"{served.url}/sign-in").status_code == 200
    end = time.monotonic() + PATIENCE
    while sum(line.get("status") == 499 for line in served.lines()) < 6 and time.monotonic() < end:
        time.sleep(0.2)
    gone = [line for line in served.lines() if line.get("status") == 499]
    assert len(gone) >= 6, served.lines()[-12:]
    text = served.log.read_text()
    assert "Traceback" not in text and "request.fault" not in text and '"status": 500' not in text
    assert events(parts) == before


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed"),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 70_000, 431, "too_large"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed"),
    ],
)
def test_non_http_input_gets_a_problem_document(served: Served, sent: bytes, status: int, code: str) -> None:
    with closing(served.connect()) as raw:
        raw.sendall(sent)
        is_problem(read_to_end(raw), status, code)


def test_broken_chunked_body_ends_the_request(served: Served) -> None:
    with closing(served.connect()) as raw:
        raw.sendall(served.head("POST /oauth/token", "Transfer-Encoding: chunked") + b"zz\r\n")
        is_problem(read_to_end(raw), 400, "malformed")
    assert "Traceback" not in served.log.read_text()
