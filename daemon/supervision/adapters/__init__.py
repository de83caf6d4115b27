"""Adapters: how the daemon speaks with each kind of command."""

from daemon.domain.process_config import ProcessConfig, adapter_of
from daemon.supervision.adapters.adapter import Adapter
from daemon.supervision.adapters.claude import Claude
from daemon.supervision.adapters.generic import Generic


def adapter_for(config: ProcessConfig) -> Adapter:
    """Return what speaks with the command of a configuration."""
    return Claude(config) if adapter_of(config) == "claude" else Generic(config)
