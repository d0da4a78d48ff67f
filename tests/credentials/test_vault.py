"""OpenBao when it hangs, is gone, forgets us, or is not OpenBao: bounded, one error, and back by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from broker.base.errors import BackendDown
from broker.base.settings import BaoIdentity
from broker.embedded.stack import Stack
from broker.keystore.vault import ChildToken, DatabaseCredential, Vault, VaultRefused
from broker.kinds.discovery import kinds
from broker.kinds.names import role_of
from broker.kinds.values import Issued
from tests.support.freezing import freeze
from tests.support.world import World

TIMEOUT = 1.0
AT_ONCE = 0.1
# Scheduling on a busy machine.
SLACK = 1.0


def issuer(stack: Stack, *, secret_id_file: Path | None = None, addr: str | None = None) -> Vault:
    """A view of its own, so that breakers opened here stay here."""
    file = secret_id_file or stack.bao.secret_id_file("guestkey-issuer")
    identity = BaoIdentity(role_id="guestkey-issuer", secret_id_file=file)
    return Vault(addr or stack.bao.address, identity, timeout=TIMEOUT, concurrency=8)


def use(vault: Vault) -> str:
    """Something only a living issuer can do."""
    return vault.encrypt("totp", b"seed", context="pe_1")


def timed(call: Callable[[], object]) -> tuple[str, float]:
    """What became of a call, and after how many seconds."""
    began = time.monotonic()
    try:
        call()
        return "done", time.monotonic() - began
    except BackendDown as error:
        assert error.backend == "openbao"
        assert error.advice
        return "down", time.monotonic() - began


def until_back(call: Callable[[], object], *, seconds: float = 10) -> None:
    """Until it works again, by itself."""
    end = time.monotonic() + seconds
    while timed(call)[0] == "down":
        assert time.monotonic() < end
        time.sleep(0.1)


@contextmanager
def hung(stack: Stack) -> Iterator[None]:
    """OpenBao accepts connections and answers nothing."""
    freeze(stack.bao)
    try:
        yield
    finally:
        freeze(stack.bao, thaw=True)


@pytest.mark.parametrize("warm", [True, False], ids=["logged in before", "never logged in"])
def test_hung_openbao_times_out_once_then_fails_fast(stack: Stack, warm: bool) -> None:
    vault = issuer(stack)
    if warm:
        use(vault)
    with hung(stack):
        with ThreadPoolExecutor(24) as pool:
            outcomes = list(pool.map(lambda _: timed(lambda: use(vault)), range(24)))
        assert {what for what, _ in outcomes} == {"down"}
        assert max(seconds for _, seconds in outcomes) < TIMEOUT + SLACK
        for _ in range(5):
            timed(lambda: use(vault))
        what, seconds = timed(lambda: use(vault))
        assert (what, seconds < AT_ONCE) == ("down", True)
    until_back(lambda: use(vault))


def test_expired_token_is_replaced_once_for_all_threads(stack: Stack) -> None:
    vault = issuer(stack)
    use(vault)
    vault._client.token = "s.dead"
    before = stack.bao.audit_log.read_text().count('"auth/approle/login"')
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: use(vault), range(8)))
    after = stack.bao.audit_log.read_text().count('"auth/approle/login"')
    assert after - before == 2, "one request and its response"


def test_token_is_renewed_at_half_its_lifetime(stack: Stack) -> None:
    vault = issuer(stack)
    use(vault)
    token, vault._renew_at = vault._client.token, 0.0
    use(vault)
    assert vault._client.token == token
    assert vault._renew_at > time.monotonic() + 1700


def test_policy_denial_is_not_treated_as_an_expired_token(stack: Stack) -> None:
    vault = issuer(stack)
    use(vault)
    token = vault._client.token
    with pytest.raises(VaultRefused):
        vault.secret("connections/data/registrar")
    assert vault._client.token == token


def test_environment_tokens_and_certificates_are_ignored(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell of an operator may hold a token that can do anything."""
    other = issuer(stack)
    use(other)
    monkeypatch.setenv("VAULT_TOKEN", other._client.token)
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    monkeypatch.setenv("VAULT_NAMESPACE", "elsewhere")
    monkeypatch.setenv("VAULT_CACERT", "/nowhere/ca.pem")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    vault = issuer(stack)
    assert not vault._client.token
    use(vault)
    assert vault._client.token != other._client.token


def test_failed_login_is_reported_and_retried(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "secret-id"
    vault = issuer(stack, secret_id_file=file)
    with pytest.raises(BackendDown, match="cannot be read"):
        use(vault)
    file.write_text("not-the-secret-id")
    with pytest.raises(BackendDown, match="does not accept") as refused:
        use(vault)
    assert "not-the-secret-id" not in str(refused.value)
    file.write_text(stack.bao.secret_id_file("guestkey-issuer").read_text() + "\n")
    assert use(vault)


def test_hanging_database_does_not_block_tokens_or_second_factors(world: World) -> None:
    vault = issuer(world.stack)
    _, dataset, _ = world.guest()
    slice_id = world.slice_id(dataset)
    policies = kinds["postgres"].policies(slice_id, "read")
    tokens = [vault.child_token(f"{world.parts.tag}-lhung{n}", f"lhung{n}", policies, ttl=60) for n in range(8)]
    freeze(world.stack.postgres)
    try:
        with ThreadPoolExecutor(8) as pool:
            waiting = [
                pool.submit(timed, partial(vault.database_credential, token, role_of(slice_id))) for token in tokens
            ]
            time.sleep(0.2)
            for _ in range(10):
                what, seconds = timed(lambda: use(vault))
                assert (what, seconds < TIMEOUT / 2) == ("done", True)
            outcomes = [one.result() for one in waiting]
        assert {what for what, _ in outcomes} == {"down"}
        assert max(seconds for _, seconds in outcomes) < TIMEOUT + SLACK
        timed(lambda: vault.database_credential(tokens[0], role_of(slice_id)))
        assert timed(lambda: vault.database_credential(tokens[0], role_of(slice_id)))[1] < AT_ONCE
        assert timed(lambda: use(vault))[0] == "done"
    finally:
        freeze(world.stack.postgres, thaw=True)
    until_back(lambda: vault.child_token(f"{world.parts.tag}-lback", "lback", policies, ttl=60))
    again = vault.child_token(f"{world.parts.tag}-lback", "lback", policies, ttl=5)
    until_back(lambda: vault.database_credential(again, role_of(slice_id)))
    end = time.monotonic() + 20
    while world.roles_of("lhung_"):
        assert time.monotonic() < end, "a request given up left a user behind"
        time.sleep(0.3)


@pytest.mark.parametrize(
    "call", [use, lambda v: v.public_keys("tokens"), lambda v: v.child_token("a-l", "l", [], ttl=5)]
)
@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<h1>Welcome</h1>"),
        (200, "application/json", b"[]"),
        (200, "application/json", b"{}"),
        (200, "application/json", b'{"auth": {}}'),
        (200, "application/json", b'{"auth": nonsense'),
        (204, "application/json", b""),
        (429, "application/json", b'{"errors": ["standby"]}'),
        (473, "application/json", b"{}"),
        (500, "application/json", b'["hvac", "expects", "an", "object"]'),
        (500, "application/json", b'{"errors": ["canary: the statement that failed"]}'),
        (501, "application/json", b'{"errors": ["not initialized"]}'),
        (503, "application/json", b'{"sealed": true}'),
        (504, "text/html", b"<h1>Gateway</h1>"),
    ],
    ids=lambda answer: f"{answer[0]} {answer[2].decode()[:20]}",
)
def test_server_other_than_an_active_openbao_is_down(
    stack: Stack, answer: tuple[int, str, bytes], call: Callable[[Vault], object]
) -> None:
    """As a proxy in front of a sealed or restarting OpenBao answers."""
    with answering(answer) as address:
        vault = issuer(stack, addr=address)
        with pytest.raises(BackendDown) as down:
            call(vault)
        assert "canary" not in f"{down.value} {down.value.detail} {down.value.advice}"
        # The same once logged in.
        vault._client.token, vault._renew_at = "s.living", time.monotonic() + 100
        with pytest.raises(BackendDown):
            call(vault)


@contextmanager
def answering(answer: tuple[int, str, bytes]) -> Iterator[str]:
    """A server that always gives the same answer; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(answer[0])
            self.send_header("Content-Type", answer[1])
            self.send_header("Content-Length", str(len(answer[2])))
            self.end_headers()
            self.wfile.write(answer[2])

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.mark.parametrize("name", ["", "a*", "*", "../x", "a/b", "A", "a b", "a\n", "-a", "a-", "é", "a" * 129, "a+b"])
def test_name_that_could_widen_a_path_or_policy_is_refused(stack: Stack, name: str) -> None:
    vault = issuer(stack)
    calls: list[Callable[[], object]] = [
        lambda: vault.write_policy(name, ""),
        lambda: vault.write_role("database", name, {}),
        lambda: vault.database_credential(ChildToken("t"), name),
        lambda: vault.child_token(name, "l", [], ttl=5),
        lambda: vault.child_token("a-l", "l", [name], ttl=5),
        lambda: vault.secret(f"connections/{name}/watch"),
    ]
    for call in calls if name != "a/b" else calls[:-1]:
        with pytest.raises(ValueError, match="unsafe name"):
            call()


def test_inner_deadline_never_extends_the_outer_one(stack: Stack) -> None:
    vault = issuer(stack)
    use(vault)
    with vault.deadline(0.05):
        with vault.deadline(60):
            time.sleep(0.06)
        with pytest.raises(BackendDown):
            use(vault)
    use(vault)


def test_repr_contains_no_secrets() -> None:
    for holder in (
        ChildToken("canary"),
        DatabaseCredential("u", "canary", "l"),
        Issued({"password": "canary"}, "l"),
    ):
        assert "canary" not in f"{holder!r} {holder}"
