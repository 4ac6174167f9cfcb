"""``tula backend instructions``: the setup of a backend, for a machine without Tula."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tula.cli.common import WRONG, File, Json, fail, print_json, read_config, warn

if TYPE_CHECKING:
    from tula.agent.boot_files import BootPlan
    from tula.agent.plan import Role


class Format(StrEnum):
    IP = "ip"
    NETWORKD = "networkd"
    NETPLAN = "netplan"


def instructions(
    backend: Annotated[str, typer.Argument(help="The backend's name in the configuration.")],
    file: File,
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="ip commands, which last until a reboot; or files for networkd or netplan.",
        ),
    ] = Format.IP,
    json: Json = False,
) -> None:
    """Print a shell script that sets a machine up as this backend, to be run there by root."""
    from tula.agent.instructions import plan_instructions
    from tula.agent.plan import role_by_name

    configuration = read_config(file)
    warn(str(file), configuration)
    role = role_by_name(configuration.config, backend)
    if role is None:
        names = {b.name for service in configuration.config.services for b in service.backends}
        known = ", ".join(sorted(names)[:20]) or "none"
        fail(WRONG, f"tula: no backend {backend!r} in {file}; its backends are: {known}")
    if format_ is not Format.IP:
        _print_boot(_boot_plan(role, format_), json)
        return
    steps = plan_instructions(configuration.config, backend) or ()
    if json:
        print_json([{"why": step.why, "commands": list(step.commands)} for step in steps])
        return
    print(f"# Sets this machine up as the backend {backend}, until it is rebooted.")
    print("set -e")
    for step in steps:
        print(f"\n# {step.why}")
        print("\n".join(step.commands))


def _boot_plan(role: Role, format_: Format) -> BootPlan:
    from tula.agent.netplan import plan_netplan
    from tula.agent.networkd import plan_networkd

    if format_ is Format.NETWORKD:
        return plan_networkd(role)
    plan = plan_netplan(role)
    if isinstance(plan, str):
        others = "--format ip" if "anyone" in plan else "--format networkd or --format ip"
        fail(WRONG, f"tula: {plan}; use {others}")
    return plan


def _print_boot(plan: BootPlan, json: bool) -> None:
    from tula.agent.boot_files import render_script

    if json:
        files = [{"path": file.path, "why": file.why, "text": file.text} for file in plan.files]
        print_json({"files": files, "commands": list(plan.commands)})
    else:
        print(render_script(plan), end="")
