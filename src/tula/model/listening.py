"""Where the balancer answers on the network: the keys ``api`` and ``metrics``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from tula.model.setting import Form, Setting


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address of this machine and a TCP port to listen on."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


class Source(StrEnum):
    """Who owns the configuration: the local file, or who writes by the API."""

    FILE = "file"
    API = "api"


_LISTEN = "an address with a port such as '10.0.0.2:8420', or a list of them"


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The API on the network."""

    listen: Annotated[
        tuple[Endpoint, ...],
        Setting(
            "Where it listens: TLS, or plain HTTP on a loopback address without a certificate.",
            expected=_LISTEN,
            distinct=True,
        ),
    ] = ()
    certificate: Annotated[
        str,
        Setting(
            "The file of its TLS certificate, with the intermediate ones (PEM); without it, a "
            "self-signed one is made.",
            Form.FILE,
        ),
    ] = ""
    key: Annotated[str, Setting("The file of the certificate's private key (PEM).", Form.FILE)] = ""
    source: Annotated[
        Source,
        Setting(
            "Who owns the configuration: file: the local file; api: who writes it over the "
            "network, and the file is only the first one."
        ),
    ] = Source.FILE


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Metrics for Prometheus on a listener of their own: GET /metrics alone, plain HTTP."""

    listen: Annotated[
        tuple[Endpoint, ...],
        Setting("Where they are served.", expected=_LISTEN, distinct=True),
    ] = ()
