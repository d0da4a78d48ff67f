"""The catalogue of problem types: each stable code, its title, what it means and what to do. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One type of problem, as its page at `/problems/<code>` tells it."""

    code: str
    title: str
    meaning: str
    advice: str


_TYPES = (
    ProblemType(
        "invalid",
        "The request is not valid",
        "A field is missing, malformed, unknown, or holds something that is not allowed there. Nothing was changed.",
        "Correct the fields named in `errors` and send the request again.",
    ),
    ProblemType(
        "malformed",
        "The request could not be read",
        "The body is not JSON, a header is malformed, or the request line is not HTTP.",
        "Send a JSON body with `Content-Type: application/json`.",
    ),
    ProblemType(
        "not_signed_in",
        "You are not signed in",
        "No session or token came with the request, or it has ended.",
        "Sign in with `guestkey login`, or in the portal.",
    ),
    ProblemType(
        "person_pending",
        "Your joining waits for confirmation",
        "You signed in and joined; an admin of the organisation has to confirm that it is you.",
        "Add your second factor meanwhile. Your contact at the organisation can hasten the confirmation.",
    ),
    ProblemType(
        "sign_in_refused",
        "The sign-in was refused",
        "The identity provider did not let you in, or what it answered could not be verified.",
        "Sign in again. If it lasts, tell the operator the request id.",
    ),
    ProblemType(
        "unknown",
        "Nobody here knows you yet",
        "The sign-in worked, but this account has not joined.",
        "Open the invitation link you were sent, then sign in.",
    ),
    ProblemType(
        "lease_over",
        "The lease is ending or over",
        "It was revoked, has run out, or is being ended; what has ended does not come back.",
        "Take a new credential.",
    ),
    ProblemType(
        "not_longer",
        "It cannot last longer",
        "The lease already lasts as long as its grant, the rule and twelve hours from its beginning allow.",
        "Take a new credential when it has ended.",
    ),
    ProblemType(
        "not_renewable",
        "This kind of credential cannot be renewed",
        "A signed token says itself when it ends.",
        "Take a new one.",
    ),
    ProblemType(
        "closed",
        "Guestkey is closed at the moment",
        "An admin closed the whole installation, or its records were restored from a backup. Nothing is issued.",
        "Ask your contact at the organisation when it opens.",
    ),
    ProblemType(
        "account_suspended",
        "This account is suspended",
        "An admin or your lead has shut this account out; it has no session, token or credential any more.",
        "Ask your contact at the organisation.",
    ),
    ProblemType(
        "joining_refused",
        "You were turned away",
        "You joined through a link that was meant for somebody else, so an admin or lead turned you away.",
        "Ask the person who invited you for a link of your own.",
    ),
    ProblemType(
        "link_invalid",
        "This link is not valid any more",
        "Joining and enrolment links work once, and not for long.",
        "Ask the person who sent it for a new one.",
    ),
    ProblemType(
        "link_used",
        "This link has been used",
        "Joining and enrolment links work once.",
        "Sign in if it was you; otherwise tell the person who sent it.",
    ),
    ProblemType(
        "link_foreign",
        "This link was made for somebody else",
        "A joining or enrolment link is bound to a sign-in source, or to one person.",
        "Sign in as the person it was made for, or ask for a link of your own.",
    ),
    ProblemType(
        "wrong_code",
        "That code is not right",
        "A one-time code is good once, for half a minute; it was mistyped, too old, or used before.",
        "Wait for the next code and try again. After several wrong ones the account is locked for a while.",
    ),
    ProblemType(
        "passkey_refused",
        "The passkey could not be verified",
        "What the authenticator answered does not fit a passkey of yours, this session, or this address.",
        "Try again, or use another factor.",
    ),
    ProblemType(
        "enrolment_closed",
        "A first second factor needs an invitation",
        "Whoever holds only a password must not be able to add the factor that is to protect it.",
        "Ask an admin for an enrolment link and open it while signed in.",
    ),
    ProblemType(
        "last_factor",
        "The last second factor stays",
        "Without any you could not get back in.",
        "Add another one first.",
    ),
    ProblemType(
        "insufficient_user_authentication",
        "A fresh second factor is needed",
        "This session has not proven a second factor recently enough for what was asked (RFC 9470).",
        "Confirm with `guestkey confirm` or in the portal, then try again.",
    ),
    ProblemType(
        "forbidden",
        "You may not do this",
        "You are known, but your roles do not include this act.",
        "Ask somebody who holds the role named, or an admin.",
    ),
    ProblemType(
        "csrf",
        "The form is not from this session",
        "A request with a session cookie must carry that session's CSRF token.",
        "Reload the page and send the form again.",
    ),
    ProblemType(
        "denied",
        "No credential was issued",
        "The gate checked every condition and at least one does not hold. `reasons` lists all of them.",
        "See each reason's advice. `guestkey why DATASET` repeats the checks without issuing anything.",
    ),
    ProblemType(
        "not_found",
        "There is nothing here",
        "It does not exist, or it is not shown to you. Both read the same.",
        "Check the name. If you expected access, ask the dataset's owner or your contact at the organisation.",
    ),
    ProblemType(
        "method_not_allowed",
        "This method is not allowed here",
        "The address exists, but not for this HTTP method.",
        "The `Allow` header names the methods; /openapi.json describes them all.",
    ),
    ProblemType(
        "conflict",
        "The state has moved on",
        "The same request cannot succeed now: something changed, ended, or exists already.",
        "Read the current state and decide again.",
    ),
    ProblemType(
        "too_many_leases",
        "Too many live leases",
        "A grant carries a limited number of live leases at a time.",
        "End one with `guestkey lease revoke`, or wait until one expires.",
    ),
    ProblemType(
        "ended_meanwhile",
        "Access ended while the credential was made",
        "Something the credential rests on ended between decision and hand-over; it was taken back, nobody got it.",
        "`guestkey why DATASET` says what is missing now.",
    ),
    ProblemType(
        "facts_changed",
        "The facts changed while you were deciding",
        "What you saw when you opened the request is no longer so.",
        "Open the request again, look at the difference, and decide anew.",
    ),
    ProblemType(
        "proposed_already",
        "This waits for a second person already",
        "The very same was proposed, and nobody has agreed to it or refused it yet.",
        "See it with `guestkey proposal list`, and have somebody agree or refuse.",
    ),
    ProblemType(
        "grant_pointless",
        "A grant would open nothing",
        "As things are, no rule would let such a grant lead to a credential; the detail says what stands in the way.",
        "Ask for another role or slice, or have what stands in the way put right first.",
    ),
    ProblemType(
        "self_decision",
        "Nobody decides about themselves",
        "You asked for this, or you would profit from it, so another person must decide.",
        "Ask another owner, steward or admin.",
    ),
    ProblemType(
        "file_unusable",
        "The file cannot be used",
        "Its encoding, its heading or its length is not what is taken here. Nothing was done with any of its lines.",
        "Save it as “CSV UTF-8” with the heading the answer names; split it if it is too long.",
    ),
    ProblemType(
        "line_unusable",
        "The line cannot be used",
        "A line of the file has too many or too few cells, or a cell that is not what its column takes.",
        "Correct the line named and send the file again: what was done is not done twice.",
    ),
    ProblemType(
        "formula",
        "A cell looks like a formula",
        "A spreadsheet would run what begins with =, +, -, @, | or %, so such cells are refused.",
        "Correct it, or put an apostrophe in front if it is meant as it stands.",
    ),
    ProblemType(
        "duplicate_line",
        "Two lines say the same",
        "An earlier line of the file means the same person or grant; only the first counts.",
        "Remove one of the two. Two people of one name are told apart by their e-mail addresses.",
    ),
    ProblemType(
        "idempotency_key_reused",
        "This idempotency key was used for something else",
        "A key stands for one request; the same key came with a different one.",
        "Use a new key for a new request.",
    ),
    ProblemType(
        "rules_invalid",
        "The rules were refused",
        "At least one line of the rules is wrong, and rules are accepted as a whole or not at all.",
        "Correct the lines named and check again with `guestkey policy check`.",
    ),
    ProblemType(
        "too_large",
        "The request is too large",
        "The body, a header or the address is longer than is accepted here.",
        "Send less at once.",
    ),
    ProblemType(
        "too_slow",
        "The request came too slowly",
        "A request is to be here within seconds; of a long one, a kilobyte every second at least.",
        "Send it again. If it lasts, the way here is too slow.",
    ),
    ProblemType(
        "misdirected",
        "This server does not answer to that name",
        "The `Host` header names another host than this installation's public address.",
        "Use the public address of this installation.",
    ),
    ProblemType(
        "tls_needed",
        "This came without TLS",
        "The public address of this installation is https, and nothing is answered in the clear. What was sent could"
        " have been read on its way.",
        "Use the https address, and end a token that was sent. Operators: have the front set `X-Forwarded-Proto`, and"
        " name its network in GUESTKEY_TRUSTED_PROXIES.",
    ),
    ProblemType(
        "too_many_requests",
        "Too many requests",
        "A rate limit or a lockout is in force.",
        "Wait as long as `Retry-After` says, then try again.",
    ),
    ProblemType(
        "backend_down",
        "A part of the house does not answer",
        "PostgreSQL, OpenBao or an identity provider did not answer in time, so nothing can be allowed.",
        "Try again in a minute. If it lasts, tell the operator: /readyz names what is missing.",
    ),
    ProblemType(
        "internal",
        "Something went wrong here",
        "This is a fault of ours. It is in our log under the request id given as `instance`.",
        "Try again. If it lasts, tell the operator the request id.",
    ),
)
CATALOGUE = {entry.code: entry for entry in _TYPES}
_BY_STATUS = {
    400: "malformed",
    401: "not_signed_in",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    409: "conflict",
    413: "too_large",
    414: "too_large",
    415: "malformed",
    421: "misdirected",
    422: "invalid",
    429: "too_many_requests",
    431: "too_large",
    503: "backend_down",
}


def code_of_status(status: int) -> str:
    """The code of the type that fits an HTTP status when nothing more is known."""
    return _BY_STATUS.get(status, "malformed" if status < 500 else "internal")
