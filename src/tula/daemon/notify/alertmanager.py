"""What Prometheus's Alertmanager posts to a webhook, version 4, so that its receivers take it.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from __future__ import annotations

import hashlib
from typing import Any

from tula.daemon.notify.group import Item, Status
from tula.daemon.notify.message import Message, moment, name_parts
from tula.model.severity import SHARED, severity_of

_NEVER = "0001-01-01T00:00:00Z"
"""The zero time of Go: an alert that has not ended."""
_GENERATOR = "tula://events"


def describe_alerts(message: Message) -> dict[str, Any]:
    """The body. Changes that have no end are alerts that fire and are never resolved."""
    alerts = [_alert(item, message) for item in message.items] or [_test(message)]
    firing = any(alert["status"] == "firing" for alert in alerts)
    return {
        "version": "4",
        "groupKey": f'{{}}:{{receiver="{message.receiver}"}}',
        "truncatedAlerts": message.truncated,
        "status": "firing" if firing else "resolved",
        "receiver": message.receiver,
        "groupLabels": {},
        "commonLabels": _common([alert["labels"] for alert in alerts]),
        "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
        "externalURL": f"tula://{message.balancer}",
        "alerts": alerts,
    }


def _alert(item: Item, message: Message) -> dict[str, Any]:
    kind, subject = item.topic
    service, backend = name_parts(item)
    labels = {"alertname": _camel(str(kind)), "severity": str(severity_of(kind))}
    if service:
        labels["service"] = service
    if backend:
        labels["backend"] = backend
    if kind not in SHARED:
        # What several balancers see has the same labels, whoever tells it.
        labels["balancer"] = message.balancer
        if subject and not service:
            labels["subject"] = subject
    annotations = {
        "summary": " ".join(filter(None, (str(item.last.kind).replace("-", " "), subject))),
        "description": item.last.message,
        "evidence": item.evidence,
        "from": message.balancer,
        "by": item.last.by,
    }
    if item.flapped:
        annotations["flapped"] = f"{item.began} times begun, {item.ended} times ended"
    resolved = item.status is Status.RESOLVED
    return {
        "status": "resolved" if resolved else "firing",
        "labels": labels,
        "annotations": {key: text for key, text in annotations.items() if text},
        "startsAt": moment(item.since),
        "endsAt": moment(item.last.time) if resolved else _NEVER,
        "generatorURL": _GENERATOR,
        "fingerprint": fingerprint(labels),
    }


def _test(message: Message) -> dict[str, Any]:
    labels = {"alertname": "TulaTest", "severity": "info", "balancer": message.balancer}
    return {
        "status": "resolved",
        "labels": labels,
        "annotations": {"summary": message.subject, "from": message.balancer},
        "startsAt": moment(message.time),
        "endsAt": moment(message.time),
        "generatorURL": _GENERATOR,
        "fingerprint": fingerprint(labels),
    }


def fingerprint(labels: dict[str, str]) -> str:
    """16 hexadecimal digits that belong to these labels, as Alertmanager's do."""
    text = "\0".join(f"{key}\0{labels[key]}" for key in sorted(labels))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _camel(word: str) -> str:
    return "Tula" + "".join(map(str.capitalize, word.split("-")))


def _common(maps: list[dict[str, str]]) -> dict[str, str]:
    first, *others = maps
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}
