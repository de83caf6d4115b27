"""Signing, sealing and password hashing: what needs a cryptographic library and no I/O."""
