-- The broker's tables, as the owner of schema `guestkey` makes them; `models/` says what each is for.
--
-- Beside each table stands what the application's role may do with it. It may delete short-lived or replaceable rows
-- only, and rewrite no event, no policy revision and no suspension: history stays, so that it can be told.

SET LOCAL search_path TO guestkey;

GRANT SELECT ON alembic_version TO guestkey_app;

-- Vendors, where their people sign in, people, teams and services -----------------------------------------------------

CREATE TABLE vendor (
    id varchar(40) CONSTRAINT pk_vendor PRIMARY KEY,
    name varchar(120) NOT NULL CONSTRAINT uq_vendor_name UNIQUE,
    status varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ck_vendor_status CHECK (status IN ('onboarding', 'active', 'suspended', 'offboarded'))
);
CREATE INDEX ix_vendor_name_begins ON vendor (lower(name) text_pattern_ops);
GRANT SELECT, INSERT, UPDATE ON vendor TO guestkey_app;

CREATE TABLE sign_in_source (
    id varchar(40) CONSTRAINT pk_sign_in_source PRIMARY KEY,
    name varchar(120) NOT NULL CONSTRAINT uq_sign_in_source_name UNIQUE,
    issuer text NOT NULL,
    client_id text NOT NULL,
    wrapped_client_secret varchar,
    required_claims jsonb NOT NULL,
    vendor_id varchar(40) CONSTRAINT fk_sign_in_source_vendor_id REFERENCES vendor,
    trusts_mfa boolean NOT NULL,
    mfa_values jsonb NOT NULL,
    other_audiences jsonb NOT NULL DEFAULT '[]',
    status varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ck_sign_in_source_status CHECK (status IN ('active', 'disabled'))
);
CREATE INDEX ix_sign_in_source_vendor_id ON sign_in_source (vendor_id);
GRANT SELECT, INSERT, UPDATE ON sign_in_source TO guestkey_app;

CREATE TABLE source_failure (
    source_id varchar(40) CONSTRAINT pk_source_failure PRIMARY KEY
        CONSTRAINT fk_source_failure_source_id REFERENCES sign_in_source,
    why text NOT NULL,
    at timestamptz NOT NULL,
    times integer NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON source_failure TO guestkey_app;

CREATE TABLE person (
    id varchar(40) CONSTRAINT pk_person PRIMARY KEY,
    issuer text NOT NULL,
    subject varchar(255) NOT NULL,
    source_id varchar(40) NOT NULL CONSTRAINT fk_person_source_id REFERENCES sign_in_source,
    vendor_id varchar(40) CONSTRAINT fk_person_vendor_id REFERENCES vendor,
    name varchar(200) NOT NULL,
    email varchar(320) NOT NULL,
    status varchar(64) NOT NULL,
    invited_by varchar(40),
    failed_codes integer NOT NULL,
    locked_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT uq_person_issuer_subject UNIQUE (issuer, subject),
    CONSTRAINT ck_person_status CHECK (status IN ('pending', 'active', 'suspended', 'refused'))
);
CREATE INDEX ix_person_email_begins ON person (lower(email) text_pattern_ops);
CREATE INDEX ix_person_name_begins ON person (lower(name) text_pattern_ops);
CREATE INDEX ix_person_vendor_id ON person (vendor_id);
GRANT SELECT, INSERT, UPDATE ON person TO guestkey_app;

CREATE TABLE role_held (
    id varchar(40) CONSTRAINT pk_role_held PRIMARY KEY,
    person_id varchar(40) NOT NULL CONSTRAINT fk_role_held_person_id REFERENCES person,
    role varchar(64) NOT NULL,
    given_by varchar(40),
    given_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    until timestamptz,
    ended_at timestamptz,
    CONSTRAINT ck_role_held_role CHECK (role IN ('admin', 'auditor', 'lead'))
);
CREATE UNIQUE INDEX uq_role_held_live ON role_held (person_id, role) WHERE ended_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON role_held TO guestkey_app;

CREATE TABLE team (
    id varchar(40) CONSTRAINT pk_team PRIMARY KEY,
    vendor_id varchar(40) NOT NULL CONSTRAINT fk_team_vendor_id REFERENCES vendor,
    name varchar(120) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT uq_team_vendor_id_name UNIQUE (vendor_id, name)
);
CREATE INDEX ix_team_name_begins ON team (lower(name) text_pattern_ops);
GRANT SELECT, INSERT, UPDATE ON team TO guestkey_app;

CREATE TABLE team_member (
    team_id varchar(40) NOT NULL CONSTRAINT fk_team_member_team_id REFERENCES team,
    person_id varchar(40) NOT NULL CONSTRAINT fk_team_member_person_id REFERENCES person,
    added_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_team_member PRIMARY KEY (team_id, person_id)
);
CREATE INDEX ix_team_member_person_id ON team_member (person_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON team_member TO guestkey_app;

CREATE TABLE service (
    id varchar(40) CONSTRAINT pk_service PRIMARY KEY,
    vendor_id varchar(40) CONSTRAINT fk_service_vendor_id REFERENCES vendor,
    name varchar(120) NOT NULL,
    secret_hash text NOT NULL,
    status varchar(64) NOT NULL,
    created_by varchar(40) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    secret_rotated_at timestamptz,
    secret_seen_by varchar(40),
    CONSTRAINT ck_service_status CHECK (status IN ('active', 'suspended'))
);
CREATE INDEX ix_service_vendor_id ON service (vendor_id);
GRANT SELECT, INSERT, UPDATE ON service TO guestkey_app;

-- Signing in: invitations, sessions, second factors, tokens of command lines and services -----------------------------

CREATE TABLE invitation (
    id varchar(40) CONSTRAINT pk_invitation PRIMARY KEY,
    token_hash bytea NOT NULL CONSTRAINT uq_invitation_token_hash UNIQUE,
    purpose varchar(64) NOT NULL,
    source_id varchar(40) CONSTRAINT fk_invitation_source_id REFERENCES sign_in_source,
    vendor_id varchar(40) CONSTRAINT fk_invitation_vendor_id REFERENCES vendor,
    person_id varchar(40) CONSTRAINT fk_invitation_person_id REFERENCES person,
    org_role varchar(64),
    role_until timestamptz,
    label varchar(200) NOT NULL,
    meant_for varchar(320) NOT NULL DEFAULT '',
    team_id varchar(40) CONSTRAINT fk_invitation_team_id REFERENCES team,
    created_by varchar(80),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    redeemed_at timestamptz,
    redeemed_by varchar(40),
    CONSTRAINT ck_invitation_person CHECK ((purpose = 'join') = (person_id IS NULL)),
    CONSTRAINT ck_invitation_purpose CHECK (purpose IN ('join', 'enrol_factor', 'reset_factor'))
);
CREATE INDEX ix_invitation_meant_for ON invitation (source_id, meant_for) WHERE meant_for <> '';
CREATE INDEX ix_invitation_redeemed_by ON invitation (redeemed_by);
GRANT SELECT, INSERT, UPDATE ON invitation TO guestkey_app;

CREATE TABLE sign_in_attempt (
    state_hash bytea CONSTRAINT pk_sign_in_attempt PRIMARY KEY,
    browser_hash bytea NOT NULL,
    source_id varchar(40) NOT NULL CONSTRAINT fk_sign_in_attempt_source_id REFERENCES sign_in_source,
    invitation_id varchar(40) CONSTRAINT fk_sign_in_attempt_invitation_id REFERENCES invitation,
    asked_acr varchar,
    next_path text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX ix_sign_in_attempt_expires_at ON sign_in_attempt (expires_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON sign_in_attempt TO guestkey_app;

CREATE TABLE session (
    id varchar(40) CONSTRAINT pk_session PRIMARY KEY,
    token_hash bytea NOT NULL CONSTRAINT uq_session_token_hash UNIQUE,
    person_id varchar(40) NOT NULL CONSTRAINT fk_session_person_id REFERENCES person,
    source_id varchar(40) NOT NULL CONSTRAINT fk_session_source_id REFERENCES sign_in_source,
    csrf_token text NOT NULL,
    user_agent varchar(200) NOT NULL,
    address varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    signed_in_at timestamptz NOT NULL,
    factor_at timestamptz,
    factor_method varchar(64),
    enrolment_allowed_until timestamptz,
    ended_at timestamptz,
    end_cause varchar(64)
);
CREATE INDEX ix_session_live ON session (person_id) WHERE ended_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON session TO guestkey_app;

CREATE TABLE passkey (
    id varchar(40) CONSTRAINT pk_passkey PRIMARY KEY,
    person_id varchar(40) NOT NULL CONSTRAINT fk_passkey_person_id REFERENCES person,
    credential_id bytea NOT NULL CONSTRAINT uq_passkey_credential_id UNIQUE,
    public_key bytea NOT NULL,
    sign_count bigint NOT NULL,
    name varchar(80) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used_at timestamptz
);
CREATE INDEX ix_passkey_person_id ON passkey (person_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON passkey TO guestkey_app;

CREATE TABLE totp_factor (
    person_id varchar(40) CONSTRAINT pk_totp_factor PRIMARY KEY CONSTRAINT fk_totp_factor_person_id REFERENCES person,
    wrapped_secret text NOT NULL,
    last_step bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    confirmed_at timestamptz
);
GRANT SELECT, INSERT, UPDATE, DELETE ON totp_factor TO guestkey_app;

CREATE TABLE recovery_code (
    id varchar(40) CONSTRAINT pk_recovery_code PRIMARY KEY,
    person_id varchar(40) NOT NULL CONSTRAINT fk_recovery_code_person_id REFERENCES person,
    code_hash bytea NOT NULL CONSTRAINT uq_recovery_code_code_hash UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at timestamptz
);
CREATE INDEX ix_recovery_code_person_id ON recovery_code (person_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON recovery_code TO guestkey_app;

CREATE TABLE factor_challenge (
    id varchar(40) CONSTRAINT pk_factor_challenge PRIMARY KEY,
    holder_id varchar(40) NOT NULL,
    purpose varchar(64) NOT NULL,
    challenge bytea NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX ix_factor_challenge_holder_id ON factor_challenge (holder_id);
GRANT SELECT, INSERT, UPDATE, DELETE ON factor_challenge TO guestkey_app;

CREATE TABLE authorization_code (
    code_hash bytea CONSTRAINT pk_authorization_code PRIMARY KEY,
    client_id varchar(64) NOT NULL,
    redirect_uri text NOT NULL,
    code_challenge varchar(128) NOT NULL,
    session_id varchar(40) NOT NULL CONSTRAINT fk_authorization_code_session_id REFERENCES session,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    token_id varchar(40)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON authorization_code TO guestkey_app;

CREATE TABLE api_token (
    id varchar(40) CONSTRAINT pk_api_token PRIMARY KEY,
    token_hash bytea NOT NULL CONSTRAINT uq_api_token_token_hash UNIQUE,
    person_id varchar(40) CONSTRAINT fk_api_token_person_id REFERENCES person,
    service_id varchar(40) CONSTRAINT fk_api_token_service_id REFERENCES service,
    source_id varchar(40) CONSTRAINT fk_api_token_source_id REFERENCES sign_in_source,
    session_id varchar(40) CONSTRAINT fk_api_token_session_id REFERENCES session,
    client_id varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    factor_at timestamptz,
    factor_method varchar(64),
    ended_at timestamptz,
    end_cause varchar(64),
    CONSTRAINT ck_api_token_holder CHECK (num_nonnulls(person_id, service_id) = 1)
);
CREATE INDEX ix_api_token_live ON api_token (person_id) WHERE ended_at IS NULL;
CREATE INDEX ix_api_token_session ON api_token (session_id) WHERE ended_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON api_token TO guestkey_app;

-- Datasets, their slices, and whom they are offered to ----------------------------------------------------------------

CREATE TABLE dataset (
    id varchar(40) CONSTRAINT pk_dataset PRIMARY KEY,
    slug varchar(64) NOT NULL CONSTRAINT uq_dataset_slug UNIQUE,
    title varchar(200) NOT NULL,
    description text NOT NULL,
    nature varchar(64) NOT NULL,
    labels jsonb NOT NULL,
    labelled_by jsonb NOT NULL DEFAULT '[]',
    owner_id varchar(40) CONSTRAINT fk_dataset_owner_id REFERENCES person,
    retention_until timestamptz,
    status varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ck_dataset_nature CHECK (nature IN ('data', 'model')),
    CONSTRAINT ck_dataset_status CHECK (status IN ('active', 'suspended', 'retired'))
);
CREATE INDEX ix_dataset_slug_begins ON dataset (lower(slug) text_pattern_ops);
CREATE INDEX ix_dataset_title_begins ON dataset (lower(title) text_pattern_ops);
GRANT SELECT, INSERT, UPDATE ON dataset TO guestkey_app;

CREATE TABLE slice (
    id varchar(40) CONSTRAINT pk_slice PRIMARY KEY,
    dataset_id varchar(40) NOT NULL CONSTRAINT fk_slice_dataset_id REFERENCES dataset,
    name varchar(64) NOT NULL,
    description text NOT NULL,
    kind varchar(64) NOT NULL,
    binding jsonb NOT NULL,
    bound_by varchar(40),
    actions jsonb NOT NULL,
    state varchar(64) NOT NULL,
    state_detail text NOT NULL,
    seen jsonb,
    rows_estimate bigint,
    claimed_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT uq_slice_dataset_id_name UNIQUE (dataset_id, name),
    CONSTRAINT ck_slice_state CHECK (state IN ('registering', 'ready', 'changed', 'failed', 'retired'))
);
CREATE INDEX ix_slice_claimed ON slice (claimed_until) WHERE claimed_until IS NOT NULL;
CREATE INDEX ix_slice_connection ON slice (kind, ((binding ->> 'connection')));
CREATE INDEX ix_slice_registering ON slice (state) WHERE state = 'registering';
GRANT SELECT, INSERT, UPDATE ON slice TO guestkey_app;

CREATE TABLE offer (
    id varchar(40) CONSTRAINT pk_offer PRIMARY KEY,
    dataset_id varchar(40) NOT NULL CONSTRAINT fk_offer_dataset_id REFERENCES dataset,
    vendor_id varchar(40) NOT NULL CONSTRAINT fk_offer_vendor_id REFERENCES vendor,
    made_by varchar(40),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);
CREATE INDEX ix_offer_vendor_id ON offer (vendor_id);
CREATE UNIQUE INDEX uq_offer_live ON offer (dataset_id, vendor_id) WHERE ended_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON offer TO guestkey_app;

CREATE TABLE catalogue (
    connection varchar(64) CONSTRAINT pk_catalogue PRIMARY KEY,
    state varchar(64) NOT NULL,
    detail text NOT NULL,
    asked_by varchar(40) NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    read_at timestamptz,
    tables integer NOT NULL,
    cut boolean NOT NULL,
    CONSTRAINT ck_catalogue_state CHECK (state IN ('waiting', 'ready', 'failed'))
);
CREATE INDEX ix_catalogue_waiting ON catalogue (state) WHERE state = 'waiting';
GRANT SELECT, INSERT, UPDATE ON catalogue TO guestkey_app;

CREATE TABLE catalogue_table (
    connection varchar(64) NOT NULL CONSTRAINT fk_catalogue_table_connection_catalogue REFERENCES catalogue,
    schema varchar(63) NOT NULL,
    name varchar(63) NOT NULL,
    rows bigint,
    usable boolean NOT NULL,
    notes jsonb NOT NULL,
    columns jsonb NOT NULL,
    CONSTRAINT pk_catalogue_table PRIMARY KEY (connection, schema, name)
);
GRANT SELECT, INSERT, DELETE ON catalogue_table TO guestkey_app;

CREATE TABLE dataset_draft (
    id varchar(40) CONSTRAINT pk_dataset_draft PRIMARY KEY,
    made_by varchar(40) NOT NULL,
    content jsonb NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX ix_dataset_draft_expires ON dataset_draft (expires_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON dataset_draft TO guestkey_app;

-- From asking to ending -----------------------------------------------------------------------------------------------

CREATE TABLE request (
    id varchar(40) CONSTRAINT pk_request PRIMARY KEY,
    person_id varchar(40) NOT NULL CONSTRAINT fk_request_person_id REFERENCES person,
    for_person_id varchar(40) CONSTRAINT fk_request_for_person_id REFERENCES person,
    team_id varchar(40) CONSTRAINT fk_request_team_id REFERENCES team,
    service_id varchar(40) CONSTRAINT fk_request_service_id REFERENCES service,
    dataset_id varchar(40) NOT NULL CONSTRAINT fk_request_dataset_id REFERENCES dataset,
    role varchar(64) NOT NULL,
    slice_name varchar(64),
    purpose text NOT NULL,
    period integer NOT NULL,
    until timestamptz,
    state varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lapses_at timestamptz NOT NULL,
    reminded_at timestamptz,
    decided_at timestamptz,
    decided_by varchar(40) CONSTRAINT fk_request_decided_by REFERENCES person,
    decision_reason text NOT NULL,
    CONSTRAINT ck_request_for_person CHECK (num_nonnulls(for_person_id, team_id, service_id) <= 1),
    CONSTRAINT ck_request_holder CHECK (num_nonnulls(team_id, service_id) <= 1),
    CONSTRAINT ck_request_period CHECK (period > 0),
    CONSTRAINT ck_request_state CHECK (state IN ('pending', 'approved', 'refused', 'withdrawn', 'lapsed'))
);
CREATE INDEX ix_request_for_person_id ON request (for_person_id) WHERE for_person_id IS NOT NULL;
CREATE INDEX ix_request_pending ON request (dataset_id, created_at) WHERE state = 'pending';
CREATE INDEX ix_request_person_id_created_at ON request (person_id, created_at);
GRANT SELECT, INSERT, UPDATE ON request TO guestkey_app;

CREATE TABLE "grant" (
    id varchar(40) CONSTRAINT pk_grant PRIMARY KEY,
    dataset_id varchar(40) NOT NULL CONSTRAINT fk_grant_dataset_id REFERENCES dataset,
    role varchar(64) NOT NULL,
    person_id varchar(40) CONSTRAINT fk_grant_person_id REFERENCES person,
    team_id varchar(40) CONSTRAINT fk_grant_team_id REFERENCES team,
    service_id varchar(40) CONSTRAINT fk_grant_service_id REFERENCES service,
    slice_name varchar(64),
    max_lifetime integer,
    purpose text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    request_id varchar(40) CONSTRAINT uq_grant_request_id UNIQUE CONSTRAINT fk_grant_request_id REFERENCES request,
    approved_by varchar(40) CONSTRAINT fk_grant_approved_by REFERENCES person,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz,
    revoked_by varchar(40),
    revoke_reason text NOT NULL,
    confirmed_at timestamptz,
    confirmed_by varchar(40),
    CONSTRAINT ck_grant_holder CHECK (num_nonnulls(person_id, team_id, service_id) = 1),
    CONSTRAINT ck_grant_period CHECK (starts_at < ends_at)
);
CREATE INDEX ix_grant_dataset ON "grant" (dataset_id) WHERE revoked_at IS NULL;
CREATE INDEX ix_grant_ends_at ON "grant" (ends_at) WHERE revoked_at IS NULL;
CREATE INDEX ix_grant_person ON "grant" (person_id, dataset_id) WHERE revoked_at IS NULL;
CREATE INDEX ix_grant_service ON "grant" (service_id, dataset_id) WHERE revoked_at IS NULL;
CREATE INDEX ix_grant_team ON "grant" (team_id, dataset_id) WHERE revoked_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON "grant" TO guestkey_app;

CREATE TABLE lease (
    id varchar(40) CONSTRAINT pk_lease PRIMARY KEY,
    kind varchar(64) NOT NULL,
    grant_id varchar(40) NOT NULL CONSTRAINT fk_lease_grant_id REFERENCES "grant",
    person_id varchar(40) CONSTRAINT fk_lease_person_id REFERENCES person,
    service_id varchar(40) CONSTRAINT fk_lease_service_id REFERENCES service,
    dataset_id varchar(40) NOT NULL CONSTRAINT fk_lease_dataset_id REFERENCES dataset,
    slice_id varchar(40) NOT NULL CONSTRAINT fk_lease_slice_id REFERENCES slice,
    action varchar(64) NOT NULL,
    state varchar(64) NOT NULL,
    handle varchar(200) NOT NULL,
    backend_lease_id varchar(400),
    policy_revision integer NOT NULL,
    rule text NOT NULL,
    decision_id varchar(40) NOT NULL,
    factor_at timestamptz,
    address varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline timestamptz NOT NULL,
    activated_at timestamptz,
    expires_at timestamptz NOT NULL,
    renewed_at timestamptz,
    end_cause varchar(64),
    end_by varchar(80),
    suspension_id varchar(40),
    ending_since timestamptz,
    ended_at timestamptz,
    confirmed_by text NOT NULL,
    attempts integer NOT NULL,
    next_attempt_at timestamptz,
    claimed_until timestamptz,
    last_error text NOT NULL,
    holder_hash bytea,
    key_hash bytea,
    exposed_until timestamptz,
    CONSTRAINT ck_lease_holder CHECK (num_nonnulls(person_id, service_id) = 1),
    CONSTRAINT ck_lease_state CHECK (state IN ('pending', 'active', 'revoking', 'revoked', 'expired', 'revoke_failed'))
);
CREATE INDEX ix_lease_ending ON lease (next_attempt_at) WHERE state IN ('revoking', 'revoke_failed');
CREATE INDEX ix_lease_live_dataset ON lease (dataset_id)
    WHERE state IN ('pending', 'active', 'revoking', 'revoke_failed');
CREATE INDEX ix_lease_live_expiry ON lease (expires_at)
    WHERE state IN ('pending', 'active', 'revoking', 'revoke_failed');
CREATE INDEX ix_lease_live_grant ON lease (grant_id) WHERE state IN ('pending', 'active', 'revoking', 'revoke_failed');
CREATE INDEX ix_lease_live_person ON lease (person_id)
    WHERE state IN ('pending', 'active', 'revoking', 'revoke_failed');
CREATE INDEX ix_lease_live_service ON lease (service_id)
    WHERE state IN ('pending', 'active', 'revoking', 'revoke_failed');
CREATE INDEX ix_lease_person_id_created_at ON lease (person_id, created_at);
CREATE INDEX ix_lease_service_id_created_at ON lease (service_id, created_at);
-- What lists of revoked certificates are made of.
CREATE INDEX ix_lease_ssh_expiry ON lease (expires_at) WHERE kind = 'ssh';
CREATE INDEX ix_lease_suspension ON lease (suspension_id, id) WHERE suspension_id IS NOT NULL;
-- One lease for repeats of a request with the same idempotency key.
CREATE UNIQUE INDEX uq_lease_idempotency ON lease (holder_hash) WHERE holder_hash IS NOT NULL;
GRANT SELECT, INSERT, UPDATE ON lease TO guestkey_app;

CREATE TABLE suspension (
    id varchar(40) CONSTRAINT pk_suspension PRIMARY KEY,
    what varchar(64) NOT NULL,
    target_id varchar(40) NOT NULL,
    name varchar(200) NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    expected jsonb,
    found jsonb NOT NULL,
    suspended_by varchar(40) NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resumed_at timestamptz,
    resumed_by varchar(40),
    CONSTRAINT ck_suspension_what CHECK (what IN ('vendor', 'person', 'dataset', 'installation'))
);
CREATE INDEX ix_suspension_by_id ON suspension (suspended_by, id);
CREATE UNIQUE INDEX uq_suspension_open ON suspension (what, target_id) WHERE resumed_at IS NULL;
GRANT SELECT, INSERT, UPDATE (resumed_at, resumed_by) ON suspension TO guestkey_app;

-- The audit log -------------------------------------------------------------------------------------------------------

CREATE TABLE event (
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_event PRIMARY KEY,
    id varchar(40) NOT NULL CONSTRAINT uq_event_id UNIQUE,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind varchar(64) NOT NULL,
    actor varchar(80) NOT NULL,
    subject varchar(80) NOT NULL,
    leaf bytea NOT NULL,
    about varchar(40)[] NOT NULL DEFAULT '{}'
);
CREATE INDEX ix_event_about ON event USING gin (about);
CREATE INDEX ix_event_actor_number ON event (actor, number);
CREATE INDEX ix_event_at ON event (at);
CREATE INDEX ix_event_kind_number ON event (kind, number);
CREATE INDEX ix_event_subject_number ON event (subject, number);
-- Columns, not the table: else the number could be chosen and the time back-dated.
GRANT SELECT, INSERT (id, kind, actor, subject, leaf, about) ON event TO guestkey_app;

CREATE TABLE event_personal (
    commitment varchar(64) CONSTRAINT pk_event_personal PRIMARY KEY,
    event_id varchar(40) NOT NULL CONSTRAINT fk_event_personal_event_id REFERENCES event (id),
    field varchar(64) NOT NULL,
    salt bytea NOT NULL,
    value varchar(2000) NOT NULL
);
CREATE INDEX ix_event_personal_event_id ON event_personal (event_id);
GRANT SELECT, INSERT ON event_personal TO guestkey_app;

-- The Merkle tree (RFC 6962) over the events and its signed checkpoints: added to, never changed.
CREATE TABLE log_entry (
    index bigint CONSTRAINT pk_log_entry PRIMARY KEY,
    event_number bigint NOT NULL CONSTRAINT uq_log_entry_event_number UNIQUE
        CONSTRAINT fk_log_entry_event_number_event REFERENCES event,
    hash bytea NOT NULL
);
GRANT SELECT, INSERT ON log_entry TO guestkey_app;

CREATE TABLE log_node (
    level smallint NOT NULL,
    index bigint NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT pk_log_node PRIMARY KEY (level, index)
);
GRANT SELECT, INSERT ON log_node TO guestkey_app;

CREATE TABLE log_checkpoint (
    size bigint CONSTRAINT pk_log_checkpoint PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    note varchar(1000) NOT NULL,
    key varchar(300) NOT NULL
);
GRANT SELECT, INSERT (size, note, key) ON log_checkpoint TO guestkey_app;

-- The rules, the installation, and what waits for a second admin ------------------------------------------------------

CREATE TABLE policy_revision (
    number integer GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_policy_revision PRIMARY KEY,
    rules text NOT NULL,
    networks text NOT NULL,
    grammar text NOT NULL,
    proposed_by varchar(40),
    approved_by varchar(40),
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT, INSERT (rules, networks, grammar, proposed_by, approved_by) ON policy_revision TO guestkey_app;

CREATE TABLE policy_in_force (
    singleton integer CONSTRAINT pk_policy_in_force PRIMARY KEY,
    revision integer NOT NULL CONSTRAINT fk_policy_in_force_revision REFERENCES policy_revision,
    closed_at timestamptz,
    closed_why text NOT NULL DEFAULT '',
    held_before timestamptz,
    CONSTRAINT ck_policy_in_force_singleton CHECK (singleton = 1)
);
GRANT SELECT, INSERT, UPDATE ON policy_in_force TO guestkey_app;

CREATE TABLE installation (
    singleton integer CONSTRAINT pk_installation PRIMARY KEY,
    tag varchar(6) NOT NULL,
    bootstrapped_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ck_installation_singleton CHECK (singleton = 1)
);
GRANT SELECT, INSERT, UPDATE ON installation TO guestkey_app;

CREATE TABLE proposal (
    id varchar(40) CONSTRAINT pk_proposal PRIMARY KEY,
    act varchar(64) NOT NULL,
    subject varchar(80) NOT NULL,
    details jsonb NOT NULL,
    state varchar(64) NOT NULL,
    proposed_by varchar(40) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lapses_at timestamptz NOT NULL,
    decided_by varchar(40),
    decided_at timestamptz,
    reason text NOT NULL,
    CONSTRAINT ck_proposal_act CHECK (
        act IN ('bind_source', 'trust_source_mfa', 'give_role', 'reset_factor', 'apply_policy', 'change_dataset',
            'add_slice', 'rotate_secret', 'add_member')
    ),
    CONSTRAINT ck_proposal_state CHECK (state IN ('pending', 'approved', 'refused', 'lapsed')),
    CONSTRAINT ck_proposal_two_people CHECK (decided_by IS NULL OR decided_by <> proposed_by OR state = 'refused')
);
CREATE INDEX ix_proposal_pending ON proposal (created_at) WHERE state = 'pending';
GRANT SELECT, INSERT, UPDATE ON proposal TO guestkey_app;

CREATE TABLE kept_answer (
    key_hash bytea CONSTRAINT pk_kept_answer PRIMARY KEY,
    request_hash bytea NOT NULL,
    status integer NOT NULL,
    body jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX ix_kept_answer_expires_at ON kept_answer (expires_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON kept_answer TO guestkey_app;

-- Notices -------------------------------------------------------------------------------------------------------------

CREATE TABLE notice (
    id varchar(40) CONSTRAINT pk_notice PRIMARY KEY,
    kind varchar(64) NOT NULL,
    actor varchar(80) NOT NULL,
    subject varchar(80) NOT NULL,
    once varchar(120) CONSTRAINT uq_notice_once UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    told_at timestamptz
);
CREATE INDEX ix_notice_told_at ON notice (told_at);
CREATE INDEX ix_notice_untold ON notice (next_attempt_at) WHERE told_at IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON notice TO guestkey_app;

CREATE TABLE notice_channel (
    id varchar(40) CONSTRAINT pk_notice_channel PRIMARY KEY,
    kind varchar(64) NOT NULL,
    name varchar(120) NOT NULL,
    shown varchar(300) NOT NULL,
    wrapped text NOT NULL,
    topics jsonb NOT NULL,
    made_by varchar(40) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    removed_at timestamptz,
    CONSTRAINT ck_notice_channel_kind CHECK (kind IN ('webhook', 'chat'))
);
-- A removed channel keeps its name for the log of deliveries, not its target and secret.
GRANT SELECT, INSERT, UPDATE (wrapped, removed_at) ON notice_channel TO guestkey_app;

CREATE TABLE delivery (
    id varchar(40) CONSTRAINT pk_delivery PRIMARY KEY,
    notice_id varchar(40) NOT NULL,
    person_id varchar(40) CONSTRAINT fk_delivery_person_id REFERENCES person,
    channel_id varchar(40) CONSTRAINT fk_delivery_channel_id REFERENCES notice_channel,
    kind varchar(64) NOT NULL,
    topic varchar(64) NOT NULL,
    title varchar(200) NOT NULL,
    body text NOT NULL,
    path varchar(200) NOT NULL,
    state varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_until timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    last_fault varchar(200) NOT NULL DEFAULT '',
    left_out integer NOT NULL DEFAULT 0,
    ended_at timestamptz,
    read_at timestamptz,
    CONSTRAINT uq_delivery_notice_id_person_id UNIQUE (notice_id, person_id),
    CONSTRAINT uq_delivery_notice_id_channel_id UNIQUE (notice_id, channel_id),
    CONSTRAINT ck_delivery_addressee CHECK (num_nonnulls(person_id, channel_id) = 1),
    CONSTRAINT ck_delivery_state CHECK (state IN ('portal', 'digest', 'collected', 'waiting', 'delivered', 'given_up'))
);
CREATE INDEX ix_delivery_channel ON delivery (channel_id, id);
CREATE INDEX ix_delivery_created_at ON delivery (created_at);
CREATE INDEX ix_delivery_digest ON delivery (person_id, id) WHERE state = 'digest';
CREATE INDEX ix_delivery_person ON delivery (person_id, id);
CREATE INDEX ix_delivery_sent ON delivery (id) WHERE state IN ('waiting', 'delivered', 'given_up');
CREATE INDEX ix_delivery_unread ON delivery (person_id) WHERE read_at IS NULL;
-- What is urgent goes out first.
CREATE INDEX ix_delivery_urgent ON delivery (next_attempt_at)
    WHERE state = 'waiting' AND topic IN ('emergency', 'failures');
CREATE INDEX ix_delivery_waiting ON delivery (next_attempt_at) WHERE state = 'waiting';
GRANT SELECT, INSERT, UPDATE, DELETE ON delivery TO guestkey_app;

CREATE TABLE notice_choice (
    person_id varchar(40) NOT NULL CONSTRAINT fk_notice_choice_person_id REFERENCES person,
    topic varchar(64) NOT NULL,
    choice varchar(64) NOT NULL,
    CONSTRAINT pk_notice_choice PRIMARY KEY (person_id, topic),
    CONSTRAINT ck_notice_choice_choice CHECK (choice IN ('now', 'digest', 'off')),
    CONSTRAINT ck_notice_choice_topic CHECK (
        topic IN ('to_decide', 'own_datasets', 'own_requests', 'own_grants', 'staff', 'joins', 'two_person',
            'failures', 'emergency', 'own_account')
    )
);
GRANT SELECT, INSERT, UPDATE ON notice_choice TO guestkey_app;

CREATE TABLE notice_address (
    person_id varchar(40) CONSTRAINT pk_notice_address PRIMARY KEY
        CONSTRAINT fk_notice_address_person_id REFERENCES person,
    address varchar(320) NOT NULL DEFAULT '',
    digest_hour smallint NOT NULL DEFAULT 8,
    digest_zone varchar(64) NOT NULL DEFAULT 'UTC',
    digest_at timestamptz,
    CONSTRAINT ck_notice_address_digest_hour CHECK (digest_hour BETWEEN 0 AND 23)
);
CREATE INDEX ix_notice_address_digest_at ON notice_address (digest_at);
GRANT SELECT, INSERT, UPDATE ON notice_address TO guestkey_app;

-- Work of the workers -------------------------------------------------------------------------------------------------

CREATE TABLE chore (
    name varchar(64) CONSTRAINT pk_chore PRIMARY KEY,
    due_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON chore TO guestkey_app;

CREATE TABLE silent_place (
    kind varchar(64) NOT NULL,
    place varchar(200) NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    why text NOT NULL,
    CONSTRAINT pk_silent_place PRIMARY KEY (kind, place)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON silent_place TO guestkey_app;

-- Later migrations name the schema themselves.
SET LOCAL search_path TO DEFAULT;
