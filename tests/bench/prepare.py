"""A home with many agents and sessions, written straight into the database of a daemon that is not running."""

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from daemon import config
from daemon.crypto.tokens import Secrets, TokenSigner, encode_secrets
from daemon.domain.ids import uuid7
from daemon.domain.rows import Session
from daemon.domain.tokens import VERIFIER_PREFIX, token_hash
from daemon.home import Home
from daemon.lifecycle import prepare
from daemon.services.signing import SECRETS_KEY

PASSWORD = "correct horse battery staple"
TTL = 86_400


class Prepared(NamedTuple):
    """Who is in the home: agent ids, (session id, token) of each session, and the credential of a verifier."""

    agents: list[str]
    sessions: list[tuple[str, str]]
    verifier: str


def make_home(root: Path, agents: int, sessions: int) -> Prepared:
    """Fill a new home; the sessions are over half of their term, so that each can be renewed once."""
    home = Home.resolve(root, {})
    prepare(home, config.load(root, {"DAEMON_SERVER_PORT": "0"}, {}), PASSWORD)
    secrets = Secrets(os.urandom(32))
    signer = TokenSigner(secrets)
    database = sqlite3.connect(home.database)
    database.execute(
        "INSERT INTO key_value_store (key, value, updated_at) VALUES (?, ?, 0)", (SECRETS_KEY, encode_secrets(secrets))
    )
    now = int(time.time())
    agent_ids = [uuid7(now * 1000, os.urandom(10)) for _ in range(agents)]
    database.executemany(
        "INSERT INTO agents (id, name, status, metadata, created_at, updated_at)"
        " VALUES (?, 'bench', 'ACTIVE', '{}', ?, ?)",
        [(agent_id, now, now) for agent_id in agent_ids],
    )
    made = [_session(signer, agent_ids[number % agents], now) for number in range(sessions)]
    columns = Session.__struct_fields__
    database.executemany(
        f"INSERT INTO sessions ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
        [tuple(getattr(row, name) for name in columns) for row, _ in made],
    )
    credential = VERIFIER_PREFIX + "bench"
    database.execute(
        "INSERT INTO verifiers (id, name, credential_hash, created_at) VALUES (?, 'bench', ?, ?)",
        (uuid7(now * 1000, os.urandom(10)), token_hash(credential), now),
    )
    database.commit()
    database.close()
    return Prepared(agent_ids, [(row.id, token) for row, token in made], credential)


def add_conversations(root: Path, made: Prepared, count: int) -> list[tuple[str, str]]:
    """Bind conversations, spread over the agents of a home; return (token, conversation id) of each."""
    owners = [(session_id, token, agent) for (session_id, token), agent in zip(made.sessions, made.agents, strict=True)]
    ids = [f"conv-{number:031}" for number in range(count)]
    now = int(time.time())
    with closing(sqlite3.connect(Home.resolve(root, {}).database)) as database:
        database.executemany(
            "INSERT INTO conversations (agent_id, conversation_id, provider, model, session_id, created_at,"
            " last_activity, expires_at, request_count) VALUES (?, ?, 'anthropic', 'claude-sonnet-4-5', ?, ?, ?, ?, 1)",
            (
                (owners[n % len(owners)][2], one, owners[n % len(owners)][0], now - count + n, now, now + TTL)
                for n, one in enumerate(ids)
            ),
        )
        database.commit()
    return [(owners[n % len(owners)][1], one) for n, one in enumerate(ids)]


def _session(signer: TokenSigner, agent_id: str, now: int) -> tuple[Session, str]:
    created = now - TTL * 3 // 4
    row = Session(
        id=uuid7(created * 1000, os.urandom(10)),
        agent_id=agent_id,
        token_hash="",
        constraints=None,
        usage_stats=None,
        expires_at=created + TTL,
        revoked_at=None,
        created_at=created,
        renewal_count=0,
        max_renewals=30,
        last_renewed_at=None,
        absolute_expires_at=created + 2_592_000,
        ttl_seconds=TTL,
        generation=1,
        previous_token_hash=None,
        rotated_at=None,
        owner_rotated_generation=0,
        used_generation=1,
        reuse_reported_at=None,
        state="ACTIVE",
        state_changed_at=created,
        started_at=created,
        revoked_reason=None,
        expired_at=None,
        idle_timeout=None,
        last_activity=now,
        request_count=1,
        user_id=None,
        workspace_id=None,
        metadata=json.dumps({}),
        created_by="api",
    )
    token, digest = signer.sign(row, os.urandom(16).hex())
    return Session(*(digest if name == "token_hash" else getattr(row, name) for name in row.__struct_fields__)), token
