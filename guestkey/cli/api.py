"""Speaking to the API: bounded in time and size, one kind of error, and a second factor asked for in place."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from broker.base import tls_reasons
from guestkey.cli import network
from guestkey.cli.faults import Code, Fault
from guestkey.cli.problems import fault_of

if TYPE_CHECKING:
    import httpx

PREFIX = "/api/v1"
ANSWER_SECONDS = 30.0
LARGEST_ANSWER = 16 * 1024 * 1024
_DEFAULT_TIMEOUT = 10.0

Json = dict[str, Any]


class Api:
    """One installation, as one caller.

    Args:
        confirm: called with the fault when a fresh second factor is needed; returns once it was given, after which
            the interrupted request is sent again. None: nobody can be asked.
    """

    def __init__(self, url: str, token: str | None, confirm: Callable[[Fault], None] | None = None) -> None:
        self.url = url
        self.confirm = confirm
        headers = {"Accept": "application/json", "User-Agent": "guestkey-cli"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = network.client(url, headers, _timeout())

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def authenticate(self, token: str) -> None:
        """From now on, with this token."""
        self._http.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: Any) -> Json:
        """One thing."""
        return self._call("GET", PREFIX + path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None) -> Json:
        """Change something. `key` makes a repeat safe (Idempotency-Key)."""
        headers = {"Idempotency-Key": key} if key else {}
        return self._call("POST", PREFIX + path, body=without_none(body or {}), headers=headers)

    def change(self, method: str, path: str, body: Mapping[str, Any] | None) -> Json:
        """Change something by any method; None in the body is left out."""
        return self._call(method, PREFIX + path, body=without_none(body or {}))

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        """Change some fields of something; None is sent as it is."""
        return self._call("PATCH", PREFIX + path, body=body)

    def put(self, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """Make something so; twice is fine."""
        return self._call("PUT", PREFIX + path, body=body)

    def delete(self, path: str) -> Json:
        """Take something away."""
        return self._call("DELETE", PREFIX + path)

    def send(self, path: str, content: bytes, **query: Any) -> Json:
        """Send a part of a CSV file."""
        return self._call("POST", PREFIX + path, query=query, content=content, headers={"Content-Type": "text/csv"})

    def pages(self, path: str, limit: int, **query: Any) -> list[Json]:
        """Up to `limit` items of a list, page by page."""
        items: list[Json] = []
        for page in self._pages(path, min(limit, 100), query):
            items += page
            if len(items) >= limit:
                break
        return items[:limit]

    @contextmanager
    def stream(self, path: str, **query: Any) -> Iterator[Iterator[bytes]]:
        """A long answer, piece by piece; cut short, it is a fault and never half a result."""
        with self._reaching():
            request = self._http.build_request("GET", PREFIX + path, params=without_none(query))
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    _understood(response, _read(response))
                yield response.iter_bytes()
            finally:
                response.close()

    def form(self, address: str, fields: Mapping[str, str]) -> Json:
        """Send a form, as OAuth wants it."""
        return self._call("POST", address, form=fields)

    def clock(self) -> str:
        """The server's own time, as the header `Date` of its shortest answer says it; "" if it does not."""
        with self._reaching():
            return str(self._http.get("/healthz").headers.get("date", ""))

    def document(self, path: str) -> Json:
        """A document outside the versioned API, such as OAuth's metadata."""
        return self._call("GET", path)

    def _pages(self, path: str, size: int, query: Mapping[str, Any]) -> Iterator[list[Json]]:
        cursor = None
        while True:
            page = self.get(path, limit=size, cursor=cursor, **query)
            items = page.get("items")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise _garbage("a list without items")
            yield items
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def _call(self, method: str, path: str, **parts: Any) -> Json:
        try:
            return self._once(method, path, **parts)
        except Fault as fault:
            if fault.code is not Code.FACTOR or self.confirm is None:
                raise
            self.confirm(fault)
        return self._once(method, path, **parts)

    def _once(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        with self._reaching():
            request = self._http.build_request(
                method,
                path,
                params=without_none(query or {}) or None,
                json=body,
                data=form,
                content=content,
                headers=dict(headers or {}),
            )
            response = self._http.send(request, stream=True)
            try:
                content = _read(response)
            finally:
                response.close()
        return _understood(response, content)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Whatever keeps an answer from arriving is one fault."""
        import httpx

        try:
            yield
        except httpx.TimeoutException as error:
            raise self._unreachable("It did not answer in time.") from error
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError) as error:
            # What it says may hold what was to be sent.
            raise _unsendable() from error
        except httpx.TransportError as error:
            raise self._unbelieved(error) or self._unreachable(str(error) or type(error).__name__) from error

    def _unbelieved(self, error: BaseException) -> Fault | None:
        refusal = tls_reasons.untrusted_certificate_in(error)
        if refusal is None:
            return None
        found = tls_reasons.explain_certificate_error(refusal, urlsplit(self.url).hostname or "")
        what = f"The certificate of {self.url} is not trusted: {found.why}."
        return Fault(Code.BACKEND, what, why="Nothing was sent.", next_step=found.mend)

    def _unreachable(self, why: str) -> Fault:
        return Fault(Code.BACKEND, f"{self.url} does not answer.", why=why, next_step="guestkey doctor")


class Document(dict[str, Any]):
    """What the server sent; a member that must be there and is not makes no sense."""

    def __missing__(self, key: str) -> Any:
        raise _garbage(f"a document without {key!r}")


def segment(text: str) -> str:
    """What a person typed as one path segment, whatever it holds."""
    if text in {"", ".", ".."}:
        raise Fault(Code.NOT_FOUND, f"{text!r} does not exist.", next_step="guestkey dataset list")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise _unsendable() from error


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given."""
    return {key: value for key, value in fields.items() if value is not None}


def _timeout() -> httpx.Timeout:
    """The longest silence accepted: `GUESTKEY_TIMEOUT` seconds, or ten."""
    import httpx

    wanted = os.environ.get("GUESTKEY_TIMEOUT")
    try:
        seconds = float(wanted) if wanted else _DEFAULT_TIMEOUT
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise Fault(Code.USAGE, "GUESTKEY_TIMEOUT is not a number of seconds up to 600.", next_step="Unset it.")
    return httpx.Timeout(seconds, connect=min(seconds, 5.0))


def _read(response: httpx.Response) -> bytes:
    import httpx

    end = time.monotonic() + ANSWER_SECONDS
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise _garbage("an answer without end")
        if time.monotonic() > end:
            raise httpx.ReadTimeout("the answer came too slowly")
    return bytes(content)


def _understood(response: httpx.Response, content: bytes) -> Json:
    if response.status_code == 204:
        return {}
    try:
        answer = json.loads(content, object_hook=Document)
    except (ValueError, RecursionError):
        answer = None
    if response.is_success:
        if not isinstance(answer, dict):
            raise _garbage(f"status {response.status_code} without a JSON document")
        return answer
    if response.is_redirect:
        raise _garbage(f"a redirect to {response.headers.get('location', 'nowhere')}")
    return _refused(response, answer if isinstance(answer, dict) else {})


def _refused(response: httpx.Response, answer: Json) -> Json:
    if "error" in answer and "code" not in answer:
        # OAuth's endpoints have a form of their own (RFC 6749 §5.2).
        answer = {
            "title": "The sign-in was refused.",
            "detail": str(answer.get("error_description") or answer["error"]),
            "advice": "guestkey login",
            "code": str(answer["error"]),
        }
    wait = response.headers.get("retry-after", "")
    raise fault_of(response.status_code, {**answer, "retry_after": wait} if wait.isdecimal() else answer)


def _unsendable() -> Fault:
    return Fault(
        Code.USAGE,
        "The input cannot be sent.",
        why="It is not UTF-8 text, or it is too long.",
        next_step="Correct it, then run it again.",
    )


def _garbage(what: str) -> Fault:
    return Fault(
        Code.FAULT,
        "The server's answer is not valid.",
        why=f"It sent {what}. The address may not be a Guestkey installation.",
        next_step="guestkey doctor",
    )
