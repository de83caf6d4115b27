"""The session authority and supervisor for the AI agents on a machine."""

__version__ = "0.1.0"
