"""What scanners and attackers send, at the real server: the right status and a problem document with every header.

No fault of ours, nothing recorded, and nothing that a second server in a row would read otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import func, select

from broker.identity.http import SESSION_COOKIE
from broker.models import Event
from broker.runtime.parts import Parts
from tests.support.serving import Served, is_problem, read_to_end
from tests.support.world import World

LAST = "Connection: close"
FORM = "Content-Type: application/x-www-form-urlencoded"
BOMB = (
    b"".join(b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n' % n for n in range(3000)) + b"--x--\r\n"
)


@pytest.fixture
def cookie(world: World) -> str:
    """Somebody's session, as a header."""
    return f"Cookie: {SESSION_COOKIE}={world.session(world.person())}"


@pytest.fixture(autouse=True)
def nothing_of_it_is_a_fault_or_an_event(served: Served, parts: Parts, cookie: str) -> Iterator[None]:
    """After each request: no 500, no traceback, no error in the log, no event more."""
    before, logged = events(parts), len(served.log.read_text())
    yield
    told = served.log.read_text()[logged:]
    assert "Traceback" not in told and "request.fault" not in told and '"level": "error"' not in told, told
    assert events(parts) == before


def events(parts: Parts) -> int:
    """How many events there are."""
    with parts.database.transaction() as tx:
        return tx.scalars(select(func.count()).select_from(Event)).one()


def answer_to(served: Served, sent: bytes) -> bytes:
    """Everything the server says to these bytes."""
    with closing(served.connect()) as raw:
        raw.sendall(sent)
        return read_to_end(raw)


@pytest.mark.parametrize(
    ("start", "lines", "status", "code"),
    [
        ("TRACE /sign-in", [], 405, "method_not_allowed"),
        ("OPTIONS /sign-in", [], 405, "method_not_allowed"),
        ("FOO /sign-in", [], 405, "method_not_allowed"),
        ("get /sign-in", [], 405, "method_not_allowed"),
        ("DELETE /api/v1/datasets", [], 405, "method_not_allowed"),
        ("OPTIONS *", [], 404, "not_found"),
        ("CONNECT evil.example:443", [], 404, "not_found"),
        ("GET http://evil.example/sign-in", [], 421, "misdirected"),
        ("GET https://evil.example@localhost/", [], 421, "misdirected"),
        ("GET //evil.example/%2e%2e", [], 404, "not_found"),
        ("GET /nonesuch", ["Upgrade: websocket", "Sec-WebSocket-Version: 13"], 404, "not_found"),
        ("GET /%00", [], 404, "not_found"),
        ("GET /%ff%fe", [], 404, "not_found"),
        ("GET /api/v1/datasets/%00%ff", [], 401, "not_signed_in"),
        ("GET /static/..%2f..%2fapp.py", [], 404, "not_found"),
        ("GET /static/%2e%2e/%2e%2e/app.py", [], 404, "not_found"),
        ("GET /static/%00", [], 404, "not_found"),
        ("GET /.git/config", [], 404, "not_found"),
        ("GET /problems/%00", [], 404, "not_found"),
        ("GET /" + "x" * 5000, [], 414, "too_large"),
        ("GET /nonesuch", ["X-Long: " + "x" * 17_000], 431, "too_large"),
        ("GET /nonesuch", [f"X-{n}: {'y' * 100}" for n in range(160)], 431, "too_large"),
        ("GET /api/v1/datasets", ["Authorization: Bearer a", "Authorization: Bearer b"], 401, "not_signed_in"),
        ("GET /api/v1/datasets", ["Authorization: Bearer \xff\xfe"], 401, "not_signed_in"),
        ("GET /api/v1/datasets", [f"Cookie: {SESSION_COOKIE}=\xff\x80\xfe; =; ;;a"], 401, "not_signed_in"),
        ("GET /api/v1/datasets", ["Cookie: " + "; ".join(f"a{n}=b" for n in range(500))], 401, "not_signed_in"),
        ("POST /api/v1/leases", ["Content-Length: 999999999"], 413, "too_large"),
        ("POST /api/v1/leases", ["Content-Length: 999999999", "Expect: 100-continue"], 413, "too_large"),
    ],
)
def test_each_malformed_request_gets_its_status(
    served: Served, start: str, lines: list[str], status: int, code: str
) -> None:
    head = "\r\n".join([f"{start} HTTP/1.1", f"Host: localhost:{served.port}", LAST, *lines, "", ""])
    is_problem(answer_to(served, head.encode("latin-1")), status, code)


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"],
        [""],
        ["localhost:{port}@evil.example"],
        ["localhost:{port}.evil.example"],
        ["evil.example:{port}"],
        ["localhost:{port}\t, evil.example"],
        ["\xff"],
    ],
)
def test_another_host_is_refused(served: Served, hosts: list[str]) -> None:
    lines = [f"Host: {host.format(port=served.port)}" for host in hosts]
    head = "\r\n".join(["GET /sign-in HTTP/1.1", LAST, *lines, "", ""])
    is_problem(answer_to(served, head.encode("latin-1")), 421, "misdirected")


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Host", "Forwarded", "X-Original-URL", "X-Rewrite-URL"])
def test_forwarded_headers_of_strangers_are_ignored(served: Served, header: str) -> None:
    sent = served.head("GET /sign-in", LAST, f"{header}: host=evil.example")
    answer = answer_to(served, sent)
    assert b" 200 " in answer.split(b"\r\n")[0] and b"evil.example" not in answer


def test_absolute_request_target_is_accepted_for_our_host(served: Served) -> None:
    start = f"GET http://localhost:{served.port}/sign-in?next=%2F"
    head = f"{start} HTTP/1.1\r\nHost: evil.example\r\n{LAST}\r\n\r\n"
    answer = answer_to(served, head.encode())
    assert b" 200 " in answer.split(b"\r\n")[0] and b"evil.example" not in answer


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "X: a\rTransfer-Encoding: chunked",
        "X\x00: a",
        "X: a\x00b",
        "Host: evil.example",
    ],
)
def test_request_smuggling_is_refused(served: Served, lines: str) -> None:
    """What follows is never read as a request of its own: one answer, and the connection ends."""
    smuggled = b"0\r\n\r\n" + served.head("GET /healthz")
    sent = f"POST /oauth/token HTTP/1.1\r\nHost: localhost:{served.port}\r\n{FORM}\r\n{lines}\r\n\r\n"
    answer = answer_to(served, sent.encode("latin-1") + smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.split(b" ")[1] in (b"400", b"413", b"501"), answer
    is_problem(answer, int(answer.split(b" ")[1]), "malformed" if b" 400 " in answer[:20] else "too_large")


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    sent = served.head("GET /healthz") + served.head("GET /nonesuch") + served.head("GET /healthz", LAST)
    answer = answer_to(served, sent)
    assert [part.split(b" ")[0] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"dataset": "x", "lifetime": NaN}',
        b'{"dataset": "x", "lifetime": -Infinity}',
        b'{"dataset": "x", "lifetime": 1e400}',
        b'{"dataset": "x", "lifetime": ' + b"9" * 5000 + b"}",
        b'{"dataset": "x", "lifetime": 1.' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"dataset": "\\ud800"}',
        b'{"dataset": "\\u0000"}',
        b'\xef\xbb\xbf{"dataset": 1}',
        '{"dataset": 1}'.encode("utf-16"),
        b'{"dataset": "x"} trailing',
        b'{"dataset": ["x"], "dataset": 1}',
    ],
)
def test_malformed_json_is_refused(served: Served, world: World, body: bytes) -> None:
    token = world.person().headers["Authorization"]
    lines = (LAST, "Content-Type: application/json", f"Content-Length: {len(body)}", f"Authorization: {token}")
    answer = answer_to(served, served.head("POST /api/v1/leases", *lines) + body)
    status = int(answer.split(b" ")[1])
    assert status in (400, 422), answer
    is_problem(answer, status, "invalid" if status == 422 else "malformed")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=x", BOMB),
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=" + "y" * 3000, b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="\xff\x00"\r\n\r\n\xff\r\n'),
        ("application/x-www-form-urlencoded", b"a&" * 100_000),
        ("application/x-www-form-urlencoded", b"grant_type=%ff%00&%zz=%&=&&&"),
        ("application/x-www-form-urlencoded; charset=utf-7", b"+AA0-=1"),
        ("text/plain", b"\x00\xff"),
    ],
)
@pytest.mark.parametrize("path", ["/oauth/token", "/security/notices"])
def test_malformed_forms_are_refused(served: Served, cookie: str, path: str, kind: str, body: bytes) -> None:
    lines = (LAST, f"Content-Type: {kind}", f"Content-Length: {len(body)}", cookie)
    answer = answer_to(served, served.head(f"POST {path}", *lines) + body)
    status = int(answer.split(b" ")[1])
    assert status in (400, 401, 403, 413, 415, 422), answer[:300]
    assert b"content-security-policy" in answer.lower()
    if b"application/problem+json" not in answer:
        assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2]), "as OAuth has it (RFC 6749, 5.2)"
