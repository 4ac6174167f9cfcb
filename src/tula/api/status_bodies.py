"""The object of ``tula status --json``, as the OpenAPI document describes it.

It is made by ``tula.engine.status``, where it may be large, and sent as it is: these models check
nothing when it is sent, a test does.
"""

from __future__ import annotations

from pydantic import BaseModel, Field


class CountBody(BaseModel):
    """What was counted since the service or backend was there."""

    packets: int
    bytes: int


class RateBody(BaseModel):
    """A second, over the last seconds; `new_flows` is not counted."""

    packets: float
    bytes: float
    new_flows: float | None


class TunnelBody(BaseModel):
    """A tunnel's two ends, and what the other end must know."""

    kind: str
    local: str
    remote: str
    id: int | None = Field(default=None, description="VXLAN's network identifier.")
    port: int | None = Field(default=None, description="UDP port of VXLAN and GUE.")
    mac: str | None = Field(default=None, description="The MAC of the backend's end (VXLAN).")


class StatusBackendBody(BaseModel):
    """One backend. `state` is up, down, draining, disabled or unknown (never checked, in
    service); `since` is when it came to be up or down, in seconds since the epoch."""

    name: str
    address: str | list[str]
    weight: int = Field(description="The configuration's.")
    forwarding: str = Field(description="Its own, else the service's: l2, l3.")
    backup: int = Field(description="Its level as a backup; 0: it is none.")
    packets: int
    bytes: int
    rates: RateBody | None
    state: str
    reason: str
    since: float | None
    effective_weight: int
    serving: bool = Field(description="Whether it gets new connections.")
    connections: int | None
    connections_estimated: bool = Field(description="By a sample: there are too many to count.")
    warning: str
    tunnel: TunnelBody | None


class PersistenceBody(BaseModel):
    """Which clients a service remembers, with which others (`services`). `timeout` is in seconds;
    `clients` is how many are remembered, null where the kernel does not tell (before Linux 6.18),
    `size` how many can be of each IP version."""

    timeout: float
    prefix: int
    prefix6: int
    scope: str
    drain: str
    services: list[str]
    clients: int | None
    size: int


class StatusServiceBody(BaseModel):
    """One service. `left` is what backends counted that it no longer has, `no_backend` the packets
    that none of its backends could take, `denied` those of clients that its lists do not admit,
    `limited` those that began a connection too many for its limits."""

    name: str
    vips: list[str]
    protocols: list[str]
    ports: list[str]
    forwarding: str
    scheduler: str
    path: str = Field(description="What moves its packets: nftables.")
    checked: bool = Field(description="Whether it has health checks.")
    minimum: int = Field(description="Fewer backends that can serve are as good as none.")
    packets: int
    bytes: int
    no_backend: int
    denied: int
    limited: int
    left: CountBody
    rates: RateBody | None
    panic: bool = Field(description="All backends serve, since few are up.")
    on_backups: bool = Field(description="Its backups serve: too few others can.")
    persistence: PersistenceBody | None
    backends: list[StatusBackendBody]


class TableBody(BaseModel):
    """A table of connections."""

    entries: int
    size: int


class FlowCountsBody(BaseModel):
    """Packets that told peers of flows, and flows learned of them; null: not counted."""

    sent: int | None
    learned: int | None


class SeenOtherwiseBody(BaseModel):
    """A backend, as `service/backend`, whose state another balancer sees otherwise."""

    backend: str
    here: str
    there: str


class StatusPeerBody(BaseModel):
    """Another balancer of the configuration; null is what is not known of it. `added`: this one
    has a token for it; `alive`: its daemon answers; `heard`: when it last did; `since`: since when
    it has been alive, or not. What it tells of itself stays as it was heard last."""

    name: str
    address: str
    added: bool
    alive: bool
    heard: float | None
    since: float | None
    why: str | None = Field(description="What keeps it from being heard.")
    version: str | None
    schema_: int | None = Field(alias="schema", description="That of its tables.")
    role: str | None
    standby: bool
    digest: str | None
    tentative: bool = Field(description="Its configuration waits for confirmation.")
    configuration_equal: bool | None
    overrides_equal: bool | None
    services: int | None
    served: int | None
    seen_otherwise: list[SeenOtherwiseBody] = Field(description="The first 20.")
    seen_otherwise_total: int
    flows: FlowCountsBody
    hears_us: bool | None
    clock: float | None = Field(description="Seconds that its clock is ahead.")


class BgpSessionBody(BaseModel):
    """The BGP session to one router, in BIRD's words; `since` is in seconds since the epoch,
    `routes` how many it was told of, `versions` the IP versions that it takes."""

    router: str
    as_number: int = Field(alias="as")
    state: str
    since: float | None
    routes: int
    versions: list[int]
    bfd: str
    error: str


class StatusConfigurationBody(BaseModel):
    """The running configuration. Times are in seconds since the epoch; `digest` is the SHA-256 of
    its text, and its ETag; `file_differs`: the daemon's file holds another one."""

    digest: str | None
    accepted: float | None
    file: str
    source: str = Field(description="Who owns it: file or api.")
    file_differs: bool
    file_differs_since: float | None
    confirm_until: float | None
    confirm_everywhere: bool


class KernelBody(BaseModel):
    """Whether the kernel is as the configuration wants it; `interfaces` are those where clients'
    packets arrive, and how they are."""

    in_sync: bool
    differences: list[str]
    forwards: bool
    compared: float | None
    interfaces: dict[str, str] | None


class PlacedProblemBody(BaseModel):
    """A problem or a warning of a configuration, with its place in the text."""

    message: str
    path: str
    line: int | None
    column: int | None
    file: str


class ReceiverBody(BaseModel):
    """One receiver of `notify`. `sent` and `failed` count messages and tries, `events` those that
    were told, `given_up` those that never will be; `waiting` are still to be told, `held` wait for
    another balancer to tell them. Times are in seconds since the epoch."""

    receiver: str
    kind: str = Field(description="webhook, exec or email.")
    sent: int
    failed: int
    events: int
    given_up: int
    waiting: int
    held: int
    last_success: float | None
    last_failure: float | None
    error: str | None = Field(description="Why the last try failed; null once one succeeded.")
    failing_since: float | None


class RefusalBody(BaseModel):
    """The file's configuration was refused."""

    since: float
    problems: list[PlacedProblemBody]


class DaemonConfigurationBody(BaseModel):
    """The daemon's file."""

    path: str
    accepted_at: float | None
    refused: RefusalBody | None


class CycleBody(BaseModel):
    """The last cycle; `reaction` is in seconds, from a health check's verdict."""

    time: float
    seconds: float
    outcome: str
    error: str | None
    reaction: float | None


class NetworkBody(BaseModel):
    """Where the network is answered; `fingerprint` is the SHA-256 of the certificate."""

    listening: list[str]
    fingerprint: str | None


class DaemonBody(BaseModel):
    """The daemon itself; `problems` is what does not work now."""

    pid: int
    version: str
    started: float
    configuration: DaemonConfigurationBody
    problems: list[str]
    network: NetworkBody
    last_cycle: CycleBody | None


class SummaryBody(BaseModel):
    """All in a line; `fine`: nothing is down, and the kernel is in sync."""

    fine: bool
    text: str


class StatusBody(BaseModel):
    """The state of services, backends and the daemon: what `tula status --json` prints."""

    services: list[StatusServiceBody]
    counters: dict[str, CountBody]
    connections: dict[str, TableBody]
    balancer: str | None = Field(description="This one's name in `load_balancers`.")
    role: str | None = Field(description="active or standby; null without an engine.")
    standby: bool = Field(description="The operator wants it to be.")
    flows: FlowCountsBody
    peers: list[StatusPeerBody]
    bgp: list[BgpSessionBody]
    configuration: StatusConfigurationBody | None
    kernel: KernelBody
    daemon: DaemonBody | None
    notify: list[ReceiverBody]
    problems: list[str]
    summary: SummaryBody
