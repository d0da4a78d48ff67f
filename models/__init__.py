"""What we remember: one file a noun. No I/O, no decisions, nothing of the broker."""

from .access import REQUEST_STATES, Grant, Request
from .base import SCHEMA, Base
from .catalogue import CATALOGUE_STATES, Catalogue, CatalogueTable, DatasetDraft
from .chore import Chore, UnreachablePlace
from .dataset import DATASET_STATUSES, SLICE_STATES, Dataset, Offer, Slice
from .event import Event, EventPersonal
from .factor import FactorChallenge, Passkey, RecoveryCode, TotpFactor
from .installation import PROPOSAL_ACTS, Installation, Proposal, StoredResponse
from .lease import LEASE_STATES, LIVE_STATES, Lease
from .log import TILE_LEVELS, LogCheckpoint, LogEntry, LogNode
from .notice import (
    CHANNEL_KINDS,
    CHOICES,
    DELIVERY_STATES,
    TOPICS,
    URGENT_TOPICS,
    Delivery,
    Notice,
    NoticeAddress,
    NoticeChannel,
    NoticeChoice,
)
from .oauth import ApiToken, AuthorizationCode
from .person import ORG_ROLES, PERSON_STATUSES, Person, RoleHeld, Team, TeamMember
from .policy import PolicyInForce, PolicyRevision
from .service import Service
from .sign_in import INVITATION_PURPOSES, Invitation, Session, SignInAttempt, SignInSource, SourceFailure
from .suspension import SUSPENDED, Suspension
from .vendor import VENDOR_STATUSES, Vendor

__all__ = [
    "CATALOGUE_STATES",
    "CHANNEL_KINDS",
    "CHOICES",
    "DATASET_STATUSES",
    "DELIVERY_STATES",
    "INVITATION_PURPOSES",
    "LEASE_STATES",
    "LIVE_STATES",
    "ORG_ROLES",
    "PERSON_STATUSES",
    "PROPOSAL_ACTS",
    "REQUEST_STATES",
    "SCHEMA",
    "SLICE_STATES",
    "SUSPENDED",
    "TILE_LEVELS",
    "TOPICS",
    "URGENT_TOPICS",
    "VENDOR_STATUSES",
    "ApiToken",
    "AuthorizationCode",
    "Base",
    "Catalogue",
    "CatalogueTable",
    "Chore",
    "Dataset",
    "DatasetDraft",
    "Delivery",
    "Event",
    "EventPersonal",
    "FactorChallenge",
    "Grant",
    "Installation",
    "Invitation",
    "Lease",
    "LogCheckpoint",
    "LogEntry",
    "LogNode",
    "Notice",
    "NoticeAddress",
    "NoticeChannel",
    "NoticeChoice",
    "Offer",
    "Passkey",
    "Person",
    "PolicyInForce",
    "PolicyRevision",
    "Proposal",
    "RecoveryCode",
    "Request",
    "RoleHeld",
    "Service",
    "Session",
    "SignInAttempt",
    "SignInSource",
    "Slice",
    "SourceFailure",
    "StoredResponse",
    "Suspension",
    "Team",
    "TeamMember",
    "TotpFactor",
    "UnreachablePlace",
    "Vendor",
]
