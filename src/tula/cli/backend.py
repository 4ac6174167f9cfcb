"""``tula backend``: the other side, machines that serve."""

from __future__ import annotations

from typing import Annotated

import typer

from tula.cli.common import WRONG, File, Json, fail, print_json, read_document, warn

app = typer.Typer(
    name="backend",
    help="Make machines into backends, for services of a document.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def root() -> None:
    """Make machines into backends, for services of a document."""


@app.command()
def instructions(
    backend: Annotated[str, typer.Argument(help="The backend's name in the document.")],
    file: File,
    json: Json = False,
) -> None:
    """Print the steps that make a machine this backend: a shell script, to be run there by root."""
    from tula.plan.instructions import plan_instructions

    document = read_document(file)
    warn(str(file), document)
    steps = plan_instructions(document.config, backend)
    if steps is None:
        names = {b.name for service in document.config.services for b in service.backends}
        known = ", ".join(sorted(names)[:20]) or "none"
        fail(WRONG, f"tula: no backend {backend!r} in {file}; there are: {known}")
    if json:
        print_json([{"why": step.why, "commands": list(step.commands)} for step in steps])
        return
    print(f"# Makes this machine the backend {backend}, until it is started again.")
    print("set -e")
    for step in steps:
        print(f"\n# {step.why}")
        print("\n".join(step.commands))
