"""What a channel's configuration must be."""

import base64

import pytest

from daemon.domain.channels import ChannelType, read_config

KEY = base64.b64encode(b"k" * 25).decode()


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("TELEGRAM", "apiUrl", "https://api.example/?a=b"),
        ("NTFY", "serverUrl", "https://ntfy.example?"),
        ("WEBHOOK", "secret", KEY),
        ("WEBHOOK", "secret", f"whsec_{KEY.rstrip('=')}"),
        ("WEBHOOK", "secret", "whsec_" + base64.b64encode(b"k" * 23).decode()),
        ("WEBHOOK", "secret", "whsec_" + base64.b64encode(b"k" * 65).decode()),
        ("WEBHOOK", "secret", f"whsec_{KEY[:-4]}é==="),
    ],
)
def test_what_a_sender_could_not_use_is_refused(kind: ChannelType, field: str, value: str) -> None:
    given = {
        "TELEGRAM": {"botToken": "1:TEST", "chatId": 1},
        "NTFY": {"topic": "owner"},
        "WEBHOOK": {"url": "https://hook.example/?a=b", "secret": f"whsec_{KEY}"},
    }[kind]
    assert read_config(kind, given)[1] == []
    assert [at for at, _ in read_config(kind, {**given, field: value})[1]] == [f"config.{field}"]
