"""A wired daemon, as one thing."""

import msgspec
from litestar import Litestar

from daemon.crypto.passwords import PasswordHasher
from daemon.domain.clock import Clock
from daemon.log import Log
from daemon.notify.messenger import Messenger
from daemon.services.latch import Latch
from daemon.settings import Config
from daemon.stores.conversation_store import ConversationStore
from daemon.stores.protocol import Engine
from daemon.supervision.supervisor import Supervisor
from daemon.web.context import Services
from daemon.web.envelope import Envelope
from daemon.web.hosts import HostPolicy
from daemon.web.meter import RequestMeter
from daemon.web.middleware.rate import SessionRates
from daemon.workers import Workers


class Parts(msgspec.Struct):
    """A wired daemon that does not listen yet."""

    config: Config
    log: Log
    clock: Clock
    store: Engine
    bindings: ConversationStore
    hasher: PasswordHasher
    services: Services
    workers: Workers
    rates: SessionRates
    messenger: Messenger
    supervisor: Supervisor
    latch: Latch
    app: Litestar

    def envelope(self, port: int | None) -> Envelope:
        """Return the ASGI application for a listener on this TCP port."""
        server = self.config.server
        hosts = HostPolicy.of(port, server.allowed_hosts, server.public_url)
        return Envelope(
            self.app,
            services=self.services,
            log=self.log,
            clock=self.clock,
            hosts=hosts,
            global_rpm=server.global_rpm,
            locked=lambda: self.latch.is_closed,
            meter=self.meter,
        )

    @property
    def meter(self) -> RequestMeter | None:
        """What counts requests, where somebody may ask for it."""
        return self.services.meter if self.config.server.metrics else None
