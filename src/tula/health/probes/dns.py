"""dns: the name has such a record, by UDP."""

from __future__ import annotations

import secrets
import socket
from functools import lru_cache

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from tula.health.check import clean
from tula.health.probes.attempt import LIMIT, Attempt, Failure
from tula.model.monitor import DnsProbe


async def probe(settings: DnsProbe, attempt: Attempt) -> str:
    """Asks, and takes the first message that answers the question."""
    try:
        query, wire = _query(settings.name, settings.record)
    except dns.exception.DNSException as error:
        raise Failure(f"invalid name {clean(settings.name, 40)!r}: {error}") from error
    number = secrets.token_bytes(2)
    with attempt.opened(socket.SOCK_DGRAM) as opened:
        await attempt.connect(opened)
        opened.send(number + wire[2:])
        while True:
            answer = await attempt.receive(opened, LIMIT)
            if answer[:2] != number:
                continue  # late, of a probe that had the port before
            return _judge(answer, query, settings.record)


@lru_cache(maxsize=1024)
def _query(name: str, record: str) -> tuple[dns.message.Message, bytes]:
    query = dns.message.make_query(name, record)
    return query, query.to_wire()


def _judge(answer: bytes, query: dns.message.Message, record: str) -> str:
    try:
        message = dns.message.from_wire(answer, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise Failure(f"not a DNS message: {clean(str(error), 60)}") from error
    if not message.flags & dns.flags.QR or message.question != query.question:
        raise Failure("the answer is to another question")
    code = message.rcode()
    if code != dns.rcode.NOERROR:
        raise Failure(f"answered {dns.rcode.to_text(code)}, wanted NOERROR")
    if not message.answer and not message.flags & dns.flags.TC:
        raise Failure(f"answered without a record of type {record}")
    return "answered NOERROR"
