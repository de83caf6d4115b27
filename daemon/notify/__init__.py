"""HTTP out: one module for each kind of channel. No SQL, no rules; importing the senders costs httpx."""
