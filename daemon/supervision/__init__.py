"""Supervision: the processes of a session, found, stopped, counted and ended as one tree."""
