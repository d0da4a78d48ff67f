"""What each problem of the API means here: the exit code, and the very command to run next. Data, and how it is read.

A code that is not here, of a newer server, still gets an exit code, by its HTTP status, and a clean line.
"""

from __future__ import annotations

import shlex
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from guestkey.cli import reasons
from guestkey.cli.faults import Code, Fault


@dataclass(frozen=True, slots=True)
class ProblemAnswer:
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
ANSWERS: Mapping[str, ProblemAnswer] = {
    "invalid": ProblemAnswer(Code.USAGE, ("{command} --help",)),
    "malformed": ProblemAnswer(Code.USAGE, ("guestkey doctor",)),
    "too_large": ProblemAnswer(Code.USAGE, ("{command} --help",)),
    "too_slow": ProblemAnswer(Code.FAULT, ("guestkey doctor",)),
    "file_unusable": ProblemAnswer(Code.USAGE, ("{command} --help",)),
    "line_unusable": ProblemAnswer(Code.USAGE, ("{command} --help",)),
    "formula": ProblemAnswer(Code.USAGE, ("{command} --help",)),
    "duplicate_line": ProblemAnswer(Code.USAGE, ("{command} --help",)),
    "rules_invalid": ProblemAnswer(Code.USAGE, ("guestkey policy check {folder}",)),
    "not_renewable": ProblemAnswer(Code.USAGE, ("guestkey lease show {id}",)),
    "denied": ProblemAnswer(Code.DENIED, _WHY),
    "ended_meanwhile": ProblemAnswer(Code.DENIED, _WHY),
    "forbidden": ProblemAnswer(Code.DENIED, ("guestkey whoami",)),
    "self_decision": ProblemAnswer(Code.DENIED, ("guestkey whoami",)),
    "person_pending": ProblemAnswer(Code.DENIED, ("guestkey status",)),
    "closed": ProblemAnswer(Code.DENIED, ("guestkey status",)),
    "account_suspended": ProblemAnswer(Code.DENIED),
    "unknown": ProblemAnswer(Code.DENIED),
    "joining_refused": ProblemAnswer(Code.DENIED),
    "link_invalid": ProblemAnswer(Code.DENIED),
    "link_used": ProblemAnswer(Code.DENIED, ("guestkey login",)),
    "link_foreign": ProblemAnswer(Code.DENIED),
    "not_signed_in": ProblemAnswer(Code.SIGN_IN, ("guestkey login",)),
    "sign_in_refused": ProblemAnswer(Code.SIGN_IN, ("guestkey login",)),
    "insufficient_user_authentication": ProblemAnswer(Code.FACTOR, ("guestkey confirm",)),
    "wrong_code": ProblemAnswer(Code.FACTOR, ("guestkey confirm",)),
    "passkey_refused": ProblemAnswer(Code.FACTOR, ("guestkey confirm",)),
    "enrolment_closed": ProblemAnswer(Code.FACTOR),
    "not_found": ProblemAnswer(Code.NOT_FOUND, ("{list}", "guestkey dataset list")),
    "conflict": ProblemAnswer(Code.FAULT, _STATE),
    "facts_changed": ProblemAnswer(Code.FAULT, _STATE),
    "proposed_already": ProblemAnswer(Code.FAULT, ("guestkey proposal list --state pending",)),
    "grant_pointless": ProblemAnswer(Code.FAULT, ("guestkey dataset show {dataset}", *_STATE)),
    "too_many_leases": ProblemAnswer(Code.FAULT, (_LIVE,)),
    "lease_over": ProblemAnswer(Code.FAULT, ("guestkey lease show {id}",)),
    "not_longer": ProblemAnswer(Code.FAULT, ("guestkey lease show {id}",)),
    "idempotency_key_reused": ProblemAnswer(Code.FAULT, (_LIVE,)),
    "last_factor": ProblemAnswer(Code.FAULT, ("guestkey whoami",)),
    "csrf": ProblemAnswer(Code.FAULT, ("guestkey doctor",)),
    "method_not_allowed": ProblemAnswer(Code.FAULT, ("guestkey doctor",)),
    "misdirected": ProblemAnswer(Code.FAULT, ("guestkey doctor",)),
    "tls_needed": ProblemAnswer(Code.FAULT, ("guestkey doctor",)),
    "too_many_requests": ProblemAnswer(Code.FAULT),
    "internal": ProblemAnswer(Code.FAULT, ("guestkey doctor",)),
    "backend_down": ProblemAnswer(Code.BACKEND, ("guestkey status",)),
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
