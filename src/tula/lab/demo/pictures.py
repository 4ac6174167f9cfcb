"""The drawings and the tables of the story."""

from __future__ import annotations

from rich.table import Table

from tula.lab.demo.frames import Exchange, Segment, TunnelExchange
from tula.lab.demo.meter import Bytes
from tula.lab.demo.panel import ANSWERS, REQUESTS, megabytes

NETWORK = f"""
    client-1 ─╮             [{REQUESTS}]requests[/]
              ├── router [{REQUESTS}]──────────────▶[/] balancer   [bold]10.9.0.100[/]
    client-2 ─╯     [{ANSWERS}]▲[/]                        [{REQUESTS}]│[/]  the same packet,
                    [{ANSWERS}]║[/]                        [{REQUESTS}]│[/]  a new MAC address
                    [{ANSWERS}]║[/]             [{REQUESTS}]╭──────────┼──────────╮[/]
                    [{ANSWERS}]║[/]             [{REQUESTS}]▼          ▼          ▼[/]
                    [{ANSWERS}]║[/]         backend-1  backend-2  backend-3  each holds
                    [{ANSWERS}]║             ║          ║          ║[/]     [bold]10.9.0.100[/] too
                    [{ANSWERS}]╚═════════════╩══════════╩══════════╝[/]
                       [{ANSWERS}]answers, straight to the clients[/]
"""


FAR_NETWORK = f"""
    clients ─── router [{REQUESTS}]───────▶[/] balancer   [bold]10.9.0.101[/]
                 [{ANSWERS}]▲[/] [{REQUESTS}]◀──────────╯[/]  the same packet, inside another one
                 [{ANSWERS}]║[/] [{REQUESTS}]│[/]
                 [{ANSWERS}]║[/] [{REQUESTS}]▼[/]
             far-1, far-2              on another subnet, each holds [bold]10.9.0.101[/]
"""


def tunnel_table(exchange: TunnelExchange) -> Table:
    """Three packets: the request, the same inside a tunnel, and the answer."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "outer IP from, to", "IP from", "IP to"):
        table.add_column(heading, no_wrap=True)
    outer = ", ".join(exchange.outer)
    for what, shown, segment, style in (
        ("request", "", exchange.arrives, REQUESTS),
        ("forwarded", outer, exchange.inside, REQUESTS),
        ("answer", "", exchange.answer, ANSWERS),
    ):
        table.add_row(what, shown, segment.source, segment.destination, style=style)
    return table


def exchange_table(exchange: Exchange) -> Table:
    """Three frames: the request twice, and the answer."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "MAC from", "MAC to", "IP from", "IP to"):
        table.add_column(heading, no_wrap=True)
    _add(table, "request", exchange.arrives, REQUESTS)
    _add(table, "forwarded", exchange.leaves, REQUESTS)
    _add(table, "answer", exchange.answer, ANSWERS)
    return table


def _add(table: Table, what: str, segment: Segment, style: str) -> None:
    macs = [_shown(segment.mac_from), _shown(segment.mac_to)]
    table.add_row(what, *macs, segment.source, segment.destination, style=style)


def _shown(host: str) -> str:
    return "balancer" if host == "lb" else host


def bytes_table(clients: Bytes, balancer: Bytes, backends: Bytes) -> Table:
    """Who received and sent how many bytes."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "received", "sent"):
        table.add_column(heading, justify="right" if heading else "left", min_width=12)
    rows = (
        ("clients", clients, ANSWERS, REQUESTS),
        ("balancer", balancer, REQUESTS, REQUESTS),
        ("backends", backends, REQUESTS, ANSWERS),
    )
    for name, count, into, out in rows:
        received, sent = (megabytes(part) for part in count)
        table.add_row(name, f"[{into}]{received}[/]", f"[{out}]{sent}[/]")
    return table
