"""The facts beside a request in words, for what the shipped example does not have: teams, rows, what opens nothing."""

from __future__ import annotations

from guestkey.cli.dossier import told

FACTS = {
    "holder": {"kind": "team", "name": "Night\x1b shift", "members": 12},
    "slices": [
        {
            "name": "berlin",
            "description": "",
            "binding": {"columns": ["age", "sex"], "rows": [["site", "=", "berlin"]]},
        },
        {"name": "full", "description": "Everything", "binding": None},
    ],
    "unmet_now": [{"code": "factor_missing", "sentence": "You have none."}, {"code": "hours", "sentence": "At 8."}],
    "lasting": [{"sentence": "No rule.", "advice": "Ask an admin."}],
    "endings": {"token": {"how": "expiry", "new_sessions": 900, "open_sessions": 900, "worst_case": None}},
}


def test_approval_facts_as_text() -> None:
    columns, values = told(FACTS)
    assert [(column.heading, values[column.path.removeprefix("told.")]) for column in columns] == [
        ("holder", "the team Night\ufffd shift, 12 people"),
        ("would read berlin", "no description; columns age, sex; only rows where site = berlin"),
        ("would read full", "Everything"),
        ("not met now", "Checked for each credential: a recent second factor."),
        ("not met now", "They would see: “At 8.”"),
        ("would give no access", "No rule. Ask an admin."),
        (
            "how access ends",
            "token: new sessions refused within 15 min, open sessions ended within 15 min, at worst until it expires",
        ),
    ]
    assert told({"holder": 1, "slices": [1], "endings": {"x": 2}, "lasting": "?"})[1], "nonsense is no crash"
