-- The embedded store. Ids are the raw bytes of their types in protocol.ids; times are seconds since
-- 1970. Tables with wide rows keep SQLite's rowid, all others are WITHOUT ROWID.

-- One row per fact about the store itself.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,     -- 'secret' (32 random bytes, base of whatever the server derives)
    value BLOB NOT NULL         -- or 'journal_epoch' (text; renewed after a backup was restored)
) WITHOUT ROWID;

CREATE TABLE invitations (
    digest    BLOB PRIMARY KEY, -- SHA-256 of the invitation; the row goes when it was used
    expires_s INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE accounts (
    account               BLOB PRIMARY KEY,
    email                 TEXT NOT NULL UNIQUE,     -- as protocol.http_api.normal_email gives it
    login_public          BLOB NOT NULL,            -- Ed25519, from the password
    recovery_login_public BLOB NOT NULL,            -- Ed25519, from the recovery phrase
    salt                  BLOB NOT NULL,            -- 16 bytes, of the password's Argon2id
    passes                INTEGER NOT NULL,
    memory_kib            INTEGER NOT NULL,
    wrapped_root          BLOB NOT NULL,            -- the root key, sealed by the password
    wrapped_root_recovery BLOB NOT NULL,            -- and by the recovery phrase
    created_s             INTEGER NOT NULL
) WITHOUT ROWID;

-- The devices of all account logs, as of the logs' heads. A device belongs to one account.
CREATE TABLE devices (
    device         BLOB PRIMARY KEY,
    account        BLOB NOT NULL REFERENCES accounts (account),
    number         INTEGER NOT NULL,                -- order of enrolment within the account, from 0
    signing_public BLOB NOT NULL,                   -- Ed25519
    is_revoked     INTEGER NOT NULL DEFAULT 0,      -- 0 or 1; never goes back to 0
    last_seen_s    INTEGER                          -- when it last renewed a token
) WITHOUT ROWID;
CREATE UNIQUE INDEX devices_of_account ON devices (account, number);

-- Tokens, by their hash. The token of a login has no device.
CREATE TABLE sessions (
    digest    BLOB PRIMARY KEY,                     -- SHA-256 of the token
    account   BLOB NOT NULL REFERENCES accounts (account),
    device    BLOB REFERENCES devices (device),
    expires_s INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_expiry ON sessions (expires_s);
CREATE INDEX sessions_of_account ON sessions (account, expires_s);

-- Nonces with which somebody logged in; kept until they would be too old anyway.
CREATE TABLE used_nonces (
    digest    BLOB PRIMARY KEY,                     -- SHA-256 of the nonce
    expires_s INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX used_nonces_by_expiry ON used_nonces (expires_s);

-- Events of account and namespace logs. number counts from 0 without gaps; the event with the
-- largest number is the log's head.
CREATE TABLE log_events (
    id     INTEGER PRIMARY KEY,
    log    BLOB NOT NULL,                           -- account or namespace
    number INTEGER NOT NULL,
    event  BLOB NOT NULL,                           -- EventId
    wire   BLOB NOT NULL                            -- SignedEvent as it travels
);
CREATE UNIQUE INDEX log_events_in_order ON log_events (log, number, event);

CREATE TABLE namespaces (
    number    INTEGER PRIMARY KEY,                  -- short name of the namespace in this store
    namespace BLOB NOT NULL UNIQUE,
    head      INTEGER NOT NULL DEFAULT 0            -- position of the last record; 0 for none
);

-- Members as of the head of the namespace's log.
CREATE TABLE members (
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    account   BLOB NOT NULL,                        -- need not have an account here
    role      INTEGER NOT NULL,                     -- protocol.logs.Role
    PRIMARY KEY (namespace, account)
) WITHOUT ROWID;
CREATE INDEX members_by_account ON members (account, namespace);

-- The journal. Positions count from 1 without gaps and are given out under the write lock, by
-- raising namespaces.head in the same transaction.
CREATE TABLE records (
    id        INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    position  INTEGER NOT NULL,
    record    BLOB NOT NULL,                        -- RecordId
    actor     BLOB NOT NULL,                        -- ActorId
    sequence  INTEGER NOT NULL,                     -- of the actor; one record each
    previous  BLOB NOT NULL,                        -- RecordId; kept for audit, never checked
    wire      BLOB NOT NULL                         -- SignedRecord as it travels
);
CREATE UNIQUE INDEX records_by_position ON records (namespace, position);
CREATE UNIQUE INDEX records_by_sequence ON records (namespace, actor, sequence);

-- Every dot of every record: no two records may write one register with the same dot.
CREATE TABLE dots (
    namespace INTEGER NOT NULL,
    item      BLOB NOT NULL,
    register  INTEGER NOT NULL,                     -- protocol.records.Register
    actor     BLOB NOT NULL,
    n         INTEGER NOT NULL,
    position  INTEGER NOT NULL,                     -- of the record in the namespace's journal
    PRIMARY KEY (namespace, item, register, actor, n)
) WITHOUT ROWID;

-- Which namespace holds which blocks. A block that two namespaces hold is stored once, and each
-- sees only its own row.
CREATE TABLE blocks (
    namespace     INTEGER NOT NULL REFERENCES namespaces (number),
    block         BLOB NOT NULL,                    -- BlockId
    size_bytes    INTEGER NOT NULL,                 -- of the frame
    lease_until_s INTEGER NOT NULL,                 -- a publisher counts on it until then
    PRIMARY KEY (namespace, block)
) WITHOUT ROWID;
