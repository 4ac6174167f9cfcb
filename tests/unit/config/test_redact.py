"""What is shown of a configuration to those who may not change it."""

from __future__ import annotations

from tula.config.redact import hidden_places, redact

TEXT = """
command: [/bin/check, --password, hunter2, -v, --api-key=hunter2, --url=x]  # hunter
health: {path: '/up?a=1&token=hunter2', headers: {A: hunter2}}
other: {path: '/up?a=1', command: [/bin/token, hunter]}
"""


def test_arguments_and_queries_that_name_a_secret_are_hidden() -> None:
    assert redact(TEXT) == (
        """
command: [/bin/check, --password, "********", -v, "********", --url=x]  # hunter
health: {path: "********", headers: {A: "********"}}
other: {path: '/up?a=1', command: [/bin/token, hunter]}
"""
    )


def test_of_a_webhook_its_place_is_shown_and_no_more() -> None:
    text = """
notify:
- webhook: https://hooks.example.org/services/T1/s3cret  # Slack
- {webhook: 'http://[2001:db8::1]:8080/?key=s3cret', exec: [a, --token, s3cret]}
- webhook: https://me:s3cret@hooks.example.org/
- webhook: https://hooks.example.org
services: {webhook: {vip: 10.0.0.1}}
"""
    shown = redact(text)
    assert shown == (
        """
notify:
- webhook: "https://hooks.example.org/********"  # Slack
- {webhook: "http://[2001:db8::1]:8080/********", exec: [a, --token, "********"]}
- webhook: "********"
- webhook: "https://hooks.example.org"
services: {webhook: {vip: 10.0.0.1}}
"""
    )
    places = [("notify", 0, "webhook"), ("notify", 1, "webhook"), ("notify", 2, "webhook")]
    assert sorted(hidden_places(shown)) == sorted([*places, ("notify", 1, "exec", 2)])
    assert hidden_places(text) == []
