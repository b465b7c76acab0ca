"""The shape of the database, as an ordered list of steps from nothing to now.

Owns the SQL of every table and the rule that steps are only ever added at the end: `PRAGMA user_version` counts how
many were taken. It must not know files: `store.database` decides when a backup comes first.

Invariants: a step is taken wholly or not at all (one BEGIN IMMEDIATE each, the count in the same transaction); all
tables are STRICT; every table that peers can fill has a cap in the code that fills it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["APPLICATION_ID", "MIGRATIONS", "holds_something", "migrate", "version_of"]

APPLICATION_ID: Final = 0x4F434757  # "OCGW": tells our database from any other SQLite file

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        """CREATE TABLE devices (
            device_id TEXT PRIMARY KEY,
            public_key TEXT NOT NULL,
            display_name TEXT,
            label TEXT,
            platform TEXT NOT NULL,
            device_family TEXT NOT NULL,
            client_id TEXT NOT NULL,
            client_mode TEXT NOT NULL,
            created_at_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        # One row per approved (device, role). A revoked row stays, so that nothing but a new approval revives it (V26).
        """CREATE TABLE device_roles (
            device_id TEXT NOT NULL REFERENCES devices (device_id) ON DELETE CASCADE,
            role TEXT NOT NULL,
            scopes TEXT NOT NULL,
            approved_at_ms INTEGER NOT NULL,
            approved_via TEXT NOT NULL,
            token_generation INTEGER NOT NULL,
            token_salt BLOB NOT NULL,
            token_digest BLOB NOT NULL,
            token_issued_at_ms INTEGER NOT NULL,
            revoked_at_ms INTEGER,
            last_seen_at_ms INTEGER NOT NULL,
            last_ip TEXT NOT NULL,
            PRIMARY KEY (device_id, role)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE pending_requests (
            request_id TEXT PRIMARY KEY,
            device_id TEXT NOT NULL,
            public_key TEXT NOT NULL,
            role TEXT NOT NULL,
            scopes TEXT NOT NULL,
            caps TEXT NOT NULL,
            commands TEXT NOT NULL,
            client_id TEXT NOT NULL,
            client_mode TEXT NOT NULL,
            display_name TEXT,
            platform TEXT NOT NULL,
            device_family TEXT NOT NULL,
            version TEXT NOT NULL,
            source_ip TEXT NOT NULL,
            source_key TEXT NOT NULL,
            reason TEXT NOT NULL,
            ask_hash TEXT NOT NULL,
            first_seen_ms INTEGER NOT NULL,
            last_seen_ms INTEGER NOT NULL,
            expires_at_ms INTEGER NOT NULL,
            UNIQUE (device_id, role)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX pending_by_source ON pending_requests (source_key, last_seen_ms)",
        "CREATE INDEX pending_by_expiry ON pending_requests (expires_at_ms)",
        # What became of a request id, so that an old id can answer "superseded by ..." instead of "unknown".
        """CREATE TABLE resolved_requests (
            request_id TEXT PRIMARY KEY,
            device_id TEXT NOT NULL,
            role TEXT NOT NULL,
            decision TEXT NOT NULL,
            replaced_by TEXT,
            added_scopes TEXT NOT NULL,
            at_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX resolved_by_age ON resolved_requests (at_ms)",
        # A row here: authority was taken back, and backups that still hold it are there to be dropped (V26).
        "CREATE TABLE backup_duty (since_ms INTEGER PRIMARY KEY) STRICT",
    ),
    (
        # Devices that a person removed: they come back by an approval, never by themselves (V26).
        """CREATE TABLE removed_devices (
            device_id TEXT PRIMARY KEY,
            removed_at_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX removed_by_age ON removed_devices (removed_at_ms)",
    ),
    (
        # Where the audit trail had got to when its file was last flushed: a tail that is cut off shows by this.
        """CREATE TABLE audit_head (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            seq INTEGER NOT NULL,
            hash TEXT NOT NULL
        ) STRICT""",
    ),
    (
        # People on message channels. Every row here is about a direct chat: what is decided in one counts nowhere else.
        """CREATE TABLE sender_requests (
            request_id TEXT PRIMARY KEY,
            channel TEXT NOT NULL,
            account TEXT NOT NULL,
            sender_id TEXT NOT NULL,
            display_name TEXT NOT NULL,
            salt BLOB NOT NULL,
            rejected INTEGER NOT NULL,
            created_at_ms INTEGER NOT NULL,
            expires_at_ms INTEGER NOT NULL,
            UNIQUE (channel, account, sender_id)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE senders (
            channel TEXT NOT NULL,
            account TEXT NOT NULL,
            sender_id TEXT NOT NULL,
            display_name TEXT NOT NULL,
            policy TEXT NOT NULL,
            decided_at_ms INTEGER NOT NULL,
            decided_by TEXT NOT NULL,
            PRIMARY KEY (channel, account, sender_id)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE sender_wrong_codes (
            channel TEXT NOT NULL,
            account TEXT NOT NULL,
            wrong INTEGER NOT NULL,
            PRIMARY KEY (channel, account)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE sender_history (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            at_ms INTEGER NOT NULL,
            event TEXT NOT NULL,
            channel TEXT NOT NULL,
            account TEXT NOT NULL,
            sender_id TEXT NOT NULL,
            display_name TEXT NOT NULL,
            actor TEXT NOT NULL,
            request_id TEXT
        ) STRICT""",
    ),
    (
        # One family of refresh tokens per (device, role), bound to the device token it belongs to (C18).
        """CREATE TABLE refresh_families (
            device_id TEXT NOT NULL,
            role TEXT NOT NULL,
            family BLOB NOT NULL UNIQUE,
            uses INTEGER NOT NULL,
            issued_at_ms INTEGER NOT NULL,
            bound BLOB NOT NULL,
            revoked_at_ms INTEGER,
            PRIMARY KEY (device_id, role),
            FOREIGN KEY (device_id, role) REFERENCES device_roles (device_id, role) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID""",
        # A revoked key stays, so that it answers "revoked" and not "wrong" (AUTH-2).
        """CREATE TABLE api_keys (
            key_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            digest BLOB NOT NULL UNIQUE,
            scopes TEXT NOT NULL,
            created_at_ms INTEGER NOT NULL,
            created_by TEXT NOT NULL,
            expires_at_ms INTEGER,
            revoked_at_ms INTEGER,
            last_used_at_ms INTEGER,
            last_ip TEXT
        ) STRICT, WITHOUT ROWID""",
        "CREATE UNIQUE INDEX api_key_names ON api_keys (name) WHERE revoked_at_ms IS NULL",
    ),
    (
        # Setup codes: digests only. A spent row stays a day, so that its issuer can learn what became of it.
        """CREATE TABLE setup_codes (
            setup_id TEXT PRIMARY KEY,
            access TEXT NOT NULL,
            token_digest BLOB NOT NULL UNIQUE,
            join_digest BLOB UNIQUE,
            join_salt BLOB,
            issuer TEXT NOT NULL,
            urls TEXT NOT NULL,
            tls_fingerprint TEXT,
            created_at_ms INTEGER NOT NULL,
            expires_at_ms INTEGER NOT NULL,
            bound_to TEXT,
            device_name TEXT,
            spent_at_ms INTEGER
        ) STRICT, WITHOUT ROWID""",
    ),
    # Nodes: what a person allowed each to lend, what waits for that, what outlives a connection, and waiting work.
    (
        """CREATE TABLE node_surfaces (
            node_id TEXT PRIMARY KEY REFERENCES devices (device_id) ON DELETE CASCADE,
            paired_at_ms INTEGER NOT NULL,
            caps TEXT NOT NULL,
            commands TEXT NOT NULL,
            approved_at_ms INTEGER NOT NULL,
            approved_via TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE node_surface_requests (
            request_id TEXT PRIMARY KEY,
            node_id TEXT NOT NULL UNIQUE REFERENCES devices (device_id) ON DELETE CASCADE,
            paired_at_ms INTEGER NOT NULL,
            caps TEXT NOT NULL,
            commands TEXT NOT NULL,
            client_id TEXT NOT NULL,
            client_mode TEXT NOT NULL,
            display_name TEXT NOT NULL,
            platform TEXT NOT NULL,
            version TEXT NOT NULL,
            device_family TEXT NOT NULL,
            remote_ip TEXT NOT NULL,
            requested_at_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE node_facts (
            node_id TEXT PRIMARY KEY REFERENCES devices (device_id) ON DELETE CASCADE,
            last_connected_at_ms INTEGER,
            last_seen_at_ms INTEGER,
            last_seen_reason TEXT,
            version TEXT,
            host_stats TEXT
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE node_pending_items (
            id TEXT PRIMARY KEY,
            node_id TEXT NOT NULL REFERENCES devices (device_id) ON DELETE CASCADE,
            paired_at_ms INTEGER NOT NULL,
            type TEXT NOT NULL,
            rank INTEGER NOT NULL,
            created_at_ms INTEGER NOT NULL,
            expires_at_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX node_pending_by_node ON node_pending_items (node_id, rank, created_at_ms)",
    ),
    (
        # The X25519 key that a device says is its own (S095): the signed statement as JSON, verified before it is kept.
        "ALTER TABLE devices ADD COLUMN key_statement TEXT",
        "ALTER TABLE pending_requests ADD COLUMN key_statement TEXT",
    ),
    (
        """CREATE TABLE client_certificates (
            fingerprint TEXT PRIMARY KEY,
            device_id TEXT NOT NULL REFERENCES devices (device_id) ON DELETE CASCADE,
            serial TEXT NOT NULL,
            issued_at_ms INTEGER NOT NULL,
            not_after_ms INTEGER NOT NULL,
            issued_by TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX client_certificates_by_device ON client_certificates (device_id, issued_at_ms)",
    ),
    (  # the durable queues of messages, and which dedupe keys were accepted lately
        """CREATE TABLE queue_messages (
            order_no INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            queue TEXT NOT NULL,
            lane TEXT NOT NULL,
            dedupe TEXT NOT NULL,
            source TEXT NOT NULL,
            kind TEXT NOT NULL,
            payload BLOB NOT NULL,
            accepted_at_ms INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            due_at_ms INTEGER NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'dead')),
            uncertain INTEGER NOT NULL,
            last_error TEXT
        ) STRICT""",
        "CREATE UNIQUE INDEX queue_messages_by_dedupe ON queue_messages (queue, dedupe)",
        """CREATE TABLE queue_seen (
            queue TEXT NOT NULL,
            dedupe TEXT NOT NULL,
            message_id TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            PRIMARY KEY (queue, dedupe)
        ) STRICT""",
        "CREATE INDEX queue_seen_by_age ON queue_seen (queue, at_ms)",
    ),
    (  # conversations with agents, and what was said in them
        """CREATE TABLE agent_sessions (
            key TEXT PRIMARY KEY,
            session_id TEXT NOT NULL UNIQUE,
            agent_id TEXT NOT NULL,
            created_at_ms INTEGER NOT NULL,
            started_at_ms INTEGER NOT NULL,
            updated_at_ms INTEGER NOT NULL,
            last_interaction_ms INTEGER NOT NULL,
            label TEXT,
            channel TEXT,
            chat_type TEXT NOT NULL,
            model TEXT,
            archived INTEGER NOT NULL,
            pinned INTEGER NOT NULL,
            last_read_ms INTEGER NOT NULL,
            tokens_in INTEGER NOT NULL,
            tokens_out INTEGER NOT NULL,
            tokens_cache_read INTEGER NOT NULL,
            tokens_cache_write INTEGER NOT NULL,
            messages INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE agent_messages (
            session_id TEXT NOT NULL,
            seq INTEGER NOT NULL,
            id TEXT NOT NULL,
            role TEXT NOT NULL,
            body BLOB NOT NULL,
            at_ms INTEGER NOT NULL,
            run_id TEXT,
            PRIMARY KEY (session_id, seq)
        ) STRICT, WITHOUT ROWID""",
        "CREATE UNIQUE INDEX agent_messages_by_run ON agent_messages (session_id, run_id, role)",
        "CREATE INDEX agent_messages_by_id ON agent_messages (session_id, id)",
        """CREATE TABLE agent_session_past (
            key TEXT NOT NULL,
            session_id TEXT NOT NULL,
            until_ms INTEGER NOT NULL,
            PRIMARY KEY (key, session_id)
        ) STRICT, WITHOUT ROWID""",
    ),
    (  # what transcripts take, counted by the database itself; 256: agents.trimming.PER_MESSAGE
        """CREATE TABLE agent_transcripts (
            session_id TEXT PRIMARY KEY,
            bytes INTEGER NOT NULL,
            messages INTEGER NOT NULL,
            newest INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX agent_transcripts_by_bytes ON agent_transcripts (bytes)",
        "CREATE INDEX agent_session_past_by_age ON agent_session_past (until_ms)",
        "CREATE TABLE agent_storage (id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL) STRICT",
        """INSERT INTO agent_transcripts SELECT session_id, sum(length(body) + 256), count(*), max(seq)
            FROM agent_messages GROUP BY session_id""",
        "INSERT INTO agent_storage SELECT 1, coalesce(sum(bytes), 0) FROM agent_transcripts",
        """CREATE TRIGGER agent_messages_come AFTER INSERT ON agent_messages BEGIN
            INSERT INTO agent_transcripts VALUES (new.session_id, length(new.body) + 256, 1, new.seq)
                ON CONFLICT (session_id) DO UPDATE SET
                    bytes = bytes + excluded.bytes,
                    messages = messages + 1,
                    newest = max(newest, excluded.newest);
            UPDATE agent_storage SET bytes = bytes + length(new.body) + 256;
        END""",
        """CREATE TRIGGER agent_messages_go AFTER DELETE ON agent_messages BEGIN
            UPDATE agent_transcripts SET bytes = bytes - length(old.body) - 256, messages = messages - 1
                WHERE session_id = old.session_id;
            UPDATE agent_storage SET bytes = bytes - length(old.body) - 256;
        END""",
    ),
    (  # what was said under a dedupe key, so that the key is no way to answer another question (V44)
        "ALTER TABLE queue_seen ADD COLUMN digest BLOB",
    ),
    (  # what runs used, by quarter of an hour (Unix milliseconds / 900000); what transcripts still tell is counted here
        """CREATE TABLE agent_usage (
            quarter INTEGER NOT NULL,
            session_id TEXT NOT NULL,
            model TEXT NOT NULL,
            agent_id TEXT NOT NULL,
            key TEXT NOT NULL,
            asked INTEGER NOT NULL,
            answered INTEGER NOT NULL,
            errors INTEGER NOT NULL,
            counted INTEGER NOT NULL,
            tokens_in INTEGER NOT NULL,
            tokens_out INTEGER NOT NULL,
            tokens_cache_read INTEGER NOT NULL,
            tokens_cache_write INTEGER NOT NULL,
            first_ms INTEGER NOT NULL,
            last_ms INTEGER NOT NULL,
            PRIMARY KEY (quarter, session_id, model, agent_id)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX agent_usage_by_key ON agent_usage (key, quarter)",
        "CREATE TABLE agent_usage_rows (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL) STRICT",
        """INSERT INTO agent_usage
            SELECT at_ms / 900000, session_id, model, agent_id, key, sum(role = 'user'), sum(role = 'assistant'),
                sum(stop IN ('error', 'aborted', 'timeout')), sum(used), sum(ti), sum(tu), sum(tr), sum(tw),
                min(at_ms), max(at_ms)
            FROM (
                SELECT m.at_ms, m.session_id, s.agent_id, s.key, m.role,
                    coalesce(substr(json_extract(j, '$.model'), 1, 256), '') AS model,
                    coalesce(json_extract(j, '$.stop'), '') AS stop,
                    json_extract(j, '$.usage') IS NOT NULL AS used,
                    coalesce(CAST(json_extract(j, '$.usage.input') AS INTEGER), 0) AS ti,
                    coalesce(CAST(json_extract(j, '$.usage.output') AS INTEGER), 0) AS tu,
                    coalesce(CAST(json_extract(j, '$.usage.cache_read') AS INTEGER), 0) AS tr,
                    coalesce(CAST(json_extract(j, '$.usage.cache_write') AS INTEGER), 0) AS tw
                FROM (
                    SELECT at_ms, session_id, role,
                        CASE WHEN json_valid(CAST(body AS TEXT)) THEN CAST(body AS TEXT) ELSE '{}' END AS j
                    FROM agent_messages WHERE role IN ('user', 'assistant')
                ) AS m JOIN (
                    SELECT session_id, key, agent_id FROM agent_sessions UNION ALL
                    SELECT p.session_id, p.key, o.agent_id FROM agent_session_past AS p
                        JOIN agent_sessions AS o ON o.key = p.key AND o.session_id <> p.session_id
                ) AS s ON s.session_id = m.session_id
            ) GROUP BY at_ms / 900000, session_id, model, agent_id""",
        "INSERT INTO agent_usage_rows SELECT 1, count(*) FROM agent_usage",
        """CREATE TRIGGER agent_usage_come AFTER INSERT ON agent_usage BEGIN
            UPDATE agent_usage_rows SET count = count + 1;
        END""",
        """CREATE TRIGGER agent_usage_go AFTER DELETE ON agent_usage BEGIN
            UPDATE agent_usage_rows SET count = count - 1;
        END""",
    ),
)


def version_of(db: sqlite3.Connection) -> int:
    """How many steps the database has taken."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(
    db: sqlite3.Connection,
    before: Callable[[int], object] | None = None,
    steps: Sequence[Sequence[str]] = MIGRATIONS,
) -> int:
    """Take the steps that are missing; ``before(version)`` runs ahead of each. Returns how many were taken.

    The connection must be in autocommit mode. If a step fails, all steps before it stay and the fault is raised.
    """
    taken = 0
    for number in range(version_of(db), len(steps)):
        if before is not None:
            before(number)
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in steps[number]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number + 1}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        taken += 1
    return taken


def holds_something(db: sqlite3.Connection) -> bool:
    """True where losing this database would lose a decision of a person: a paired (or revoked) device, a sender, a
    key."""
    if version_of(db) < 1:
        return False
    if bool(db.execute("SELECT EXISTS (SELECT 1 FROM device_roles)").fetchone()[0]):
        return True
    # A backup may be of an older format, without these tables.
    for table in ("senders", "api_keys"):
        known = db.execute("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?)", (table,)).fetchone()[0]
        if known and db.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0]:  # noqa: S608 - a constant
            return True
    return False
