"""The daemon as a service of the owner's systemd or launchd: the file that says so, and what they are asked."""
