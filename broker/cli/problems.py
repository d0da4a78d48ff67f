"""What each problem of the API means here: the exit code, and the very command to run next. Data, and how it is read.

A code that is not here, of a newer server, still gets an exit code, by its HTTP status, and a clean line.
"""

from __future__ import annotations

import shlex
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from broker.cli import reasons
from broker.cli.faults import Code, Fault


@dataclass(frozen=True, slots=True)
class Answer:
    """How a problem ends a command, and what to run next: the first of these whose blanks can be filled.

    The blanks are what was typed (`{dataset}`, `{id}`), `{command}` itself, and `{list}`, the list of its noun.
    """

    code: Code
    next: tuple[str, ...] = ()


_LIVE = "guestkey lease list --state live"
_WHY = ("guestkey why {dataset}", _LIVE)
_STATE = ("guestkey request show {request}", "guestkey dataset show {slices_of}", "{list}", "guestkey status")
# Nouns whose things are listed elsewhere.
_WITHOUT_LIST = frozenset({"policy", "slice"})
ANSWERS: Mapping[str, Answer] = {
    "invalid": Answer(Code.USAGE, ("{command} --help",)),
    "malformed": Answer(Code.USAGE, ("guestkey doctor",)),
    "too_large": Answer(Code.USAGE, ("{command} --help",)),
    "too_slow": Answer(Code.FAULT, ("guestkey doctor",)),
    "file_unusable": Answer(Code.USAGE, ("{command} --help",)),
    "line_unusable": Answer(Code.USAGE, ("{command} --help",)),
    "formula": Answer(Code.USAGE, ("{command} --help",)),
    "duplicate_line": Answer(Code.USAGE, ("{command} --help",)),
    "rules_invalid": Answer(Code.USAGE, ("guestkey policy check {folder}",)),
    "not_renewable": Answer(Code.USAGE, ("guestkey lease show {id}",)),
    "denied": Answer(Code.DENIED, _WHY),
    "ended_meanwhile": Answer(Code.DENIED, _WHY),
    "forbidden": Answer(Code.DENIED, ("guestkey whoami",)),
    "self_decision": Answer(Code.DENIED, ("guestkey whoami",)),
    "person_pending": Answer(Code.DENIED, ("guestkey status",)),
    "closed": Answer(Code.DENIED, ("guestkey status",)),
    "account_suspended": Answer(Code.DENIED),
    "unknown": Answer(Code.DENIED),
    "joining_refused": Answer(Code.DENIED),
    "link_invalid": Answer(Code.DENIED),
    "link_used": Answer(Code.DENIED, ("guestkey login",)),
    "link_foreign": Answer(Code.DENIED),
    "not_signed_in": Answer(Code.SIGN_IN, ("guestkey login",)),
    "sign_in_refused": Answer(Code.SIGN_IN, ("guestkey login",)),
    "insufficient_user_authentication": Answer(Code.FACTOR, ("guestkey confirm",)),
    "wrong_code": Answer(Code.FACTOR, ("guestkey confirm",)),
    "passkey_refused": Answer(Code.FACTOR, ("guestkey confirm",)),
    "enrolment_closed": Answer(Code.FACTOR),
    "not_found": Answer(Code.NOT_FOUND, ("{list}", "guestkey dataset list")),
    "conflict": Answer(Code.FAULT, _STATE),
    "facts_changed": Answer(Code.FAULT, _STATE),
    "proposed_already": Answer(Code.FAULT, ("guestkey proposal list --state pending",)),
    "grant_pointless": Answer(Code.FAULT, ("guestkey dataset show {dataset}", *_STATE)),
    "too_many_leases": Answer(Code.FAULT, (_LIVE,)),
    "lease_over": Answer(Code.FAULT, ("guestkey lease show {id}",)),
    "not_longer": Answer(Code.FAULT, ("guestkey lease show {id}",)),
    "idempotency_key_reused": Answer(Code.FAULT, (_LIVE,)),
    "last_factor": Answer(Code.FAULT, ("guestkey whoami",)),
    "csrf": Answer(Code.FAULT, ("guestkey doctor",)),
    "method_not_allowed": Answer(Code.FAULT, ("guestkey doctor",)),
    "misdirected": Answer(Code.FAULT, ("guestkey doctor",)),
    "tls_needed": Answer(Code.FAULT, ("guestkey doctor",)),
    "too_many_requests": Answer(Code.FAULT),
    "internal": Answer(Code.FAULT, ("guestkey doctor",)),
    "backend_down": Answer(Code.BACKEND, ("guestkey status",)),
}
# Advice to who writes requests by hand: not a word of it can be followed at a terminal.
_FOR_PROGRAMS = ("`errors`", "`Content-Type", "`Allow`")
_BY_STATUS = {
    400: Code.USAGE,
    401: Code.SIGN_IN,
    403: Code.DENIED,
    404: Code.NOT_FOUND,
    422: Code.USAGE,
    502: Code.BACKEND,
    503: Code.BACKEND,
    504: Code.BACKEND,
}


def fault_of(status: int, problem: Mapping[str, Any]) -> Fault:
    """The fault of an API answer that is a problem document, or of one that is not."""
    words = {key: str(problem.get(key) or "") for key in ("title", "detail", "advice")}
    if any(sign in words["advice"] for sign in _FOR_PROGRAMS):
        words["advice"] = ""
    known = ANSWERS.get(str(problem.get("code") or ""))
    wait = problem.get("retry_after")
    return Fault(
        known.code if known else _BY_STATUS.get(status, Code.FAULT),
        words["title"] or f"The server refused (status {status}).",
        why=words["detail"],
        next_step=f"Wait {wait} s, then run it again." if wait and status == 429 else words["advice"],
        problem=problem,
    )


def next_command(problem: Mapping[str, Any], command: str, typed: Mapping[str, Any]) -> str:
    """The command to run after a problem, ready to be copied; "" if no command helps.

    Args:
        command: the one that failed, without `guestkey`.
        typed: its arguments and options by name.
    """
    known = ANSWERS.get(str(problem.get("code") or ""))
    found = problem.get("reasons")
    first = reasons.next_command([one for one in found if isinstance(one, Mapping)]) if isinstance(found, list) else ""
    return filled((first, *(known.next if known else ())), command, typed)


def filled(texts: Iterable[str], command: str, typed: Mapping[str, Any]) -> str:
    """The first of these commands whose blanks can be filled with what was typed, or ""."""
    blanks = _blanks(command, typed)
    return next((said for text in texts if (said := _filled(text, blanks))), "")


def _blanks(command: str, typed: Mapping[str, Any]) -> dict[str, str]:
    named = {name.rstrip("_"): shlex.quote(str(value)) for name, value in typed.items() if value is not None}
    noun, _, verb = command.partition(" ")
    if noun == "slice" and "dataset" in named:
        named["slices_of"] = named["dataset"]
    elif verb and noun not in _WITHOUT_LIST:
        named["list"] = f"guestkey {noun} list"
    if noun == "request" and "id" in named:
        named["request"] = named["id"]
    return {**named, "command": f"guestkey {command}"}


def _filled(text: str, blanks: Mapping[str, str]) -> str:
    wanted = {name for _, name, _, _ in string.Formatter().parse(text) if name}
    return text.format_map(blanks) if wanted <= blanks.keys() else ""
