"""What is allowed: `decide(facts, rules, now) -> Decision`, pure, decided by Casbin over a closed vocabulary."""

from .conditions import ConditionResult, UnknownCondition
from .decide import decide
from .decision import Bounds, Decision, Reason
from .facts import CallerFacts, DatasetFacts, Facts, GrantFacts, SliceFacts, VendorFacts
from .rules import ACTIONS, Problem, Rule, Rules, RulesInvalid
from .table import TableResult, run_table

__all__ = [
    "ACTIONS",
    "Bounds",
    "CallerFacts",
    "ConditionResult",
    "DatasetFacts",
    "Decision",
    "Facts",
    "GrantFacts",
    "Problem",
    "Reason",
    "Rule",
    "Rules",
    "RulesInvalid",
    "SliceFacts",
    "TableResult",
    "UnknownCondition",
    "VendorFacts",
    "decide",
    "run_table",
]
