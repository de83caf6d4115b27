"""The wiring of everything that runs processes."""

import os
from collections.abc import Mapping

import msgspec

from daemon.crypto.seal_key import SealKey
from daemon.home import Home
from daemon.log import Log
from daemon.service_manager import ServiceManager
from daemon.services.process_reports import ProcessReports
from daemon.services.process_seals import ProcessSeals
from daemon.services.signing import Signing
from daemon.services.staging import Staging
from daemon.services.supervision import Supervision
from daemon.services.tokens import Tokens
from daemon.settings import Config
from daemon.stores.protocol import Engine
from daemon.supervision.files import Files
from daemon.supervision.house import Grace, House, Places
from daemon.supervision.reaper import Reaper
from daemon.supervision.supervisor import Supervisor
from daemon.supervision.workspace import base_environment
from daemon.web.open_stream import StreamLimits

USUAL_UMASK = 0o022


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon is started in.

    Args:
        stream_limits: what live streams may take.
        grace: how long a process is given to end.
        umask: of the processes that it runs.
        environ: of which they get a part.
        manager: who started it as a service.
    """

    stream_limits: StreamLimits = StreamLimits()
    grace: Grace = Grace()
    umask: int = USUAL_UMASK
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(os.environ))
    manager: ServiceManager = msgspec.field(default_factory=ServiceManager)


class Supervising(msgspec.Struct):
    """What running processes takes: the supervisor, and what services need for sessions that have one."""

    supervisor: Supervisor
    supervision: Supervision
    tokens: Tokens


def supervise(
    home: Home, config: Config, store: Engine, log: Log, *, signing: Signing, surroundings: Surroundings
) -> Supervising:
    """Connect the supervisor to an open engine; it minds nothing before it is told to.

    Args:
        home: where processes have their directories.
        config: the configuration.
        store: the engine.
        log: the structured log.
        signing: makes tokens.
        surroundings: what the daemon was started in.
    """
    files = Files(home.processes)
    seals, home_id = ProcessSeals(SealKey(home.seal_key_file)), files.home_id()
    staging = Staging(signing, files)
    tokens = Tokens(store, signing, config.security, files, staging)
    house = House(
        reports=ProcessReports(store, seals, home_id),
        files=files,
        reaper=Reaper(),
        settings=config.processes,
        grace=surroundings.grace,
        clock=store.clock,
        environment=base_environment(surroundings.environ),
        umask=surroundings.umask,
        scoped=surroundings.manager.is_there,
        report=log.emit,
        fail=log.failure,
        renew=tokens.renew_supervised,
        settle=tokens.settle,
        places=Places(config.processes.max_processes),
    )
    supervisor = Supervisor(house)
    supervision = Supervision(store, supervisor, seals, staging=staging, settings=config.processes, home=home_id)
    return Supervising(supervisor, supervision, tokens)
