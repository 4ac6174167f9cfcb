"""``tula version``: of the command, and of the daemon that runs."""

from __future__ import annotations

from tula.cli.common import RUN_DIR, Json, RunDir, print_json
from tula.cli.daemon import daemon_errors, require_daemon
from tula.cli.remote import chosen_server


def version(json: Json = False, run_dir: RunDir = RUN_DIR) -> None:
    """Print the version, and the running daemon's where there is one."""
    from tula.version import __version__

    daemon = _daemon_version(run_dir)
    if json:
        print_json({"version": __version__, "daemon": daemon})
        return
    print(f"tula {__version__}")
    if daemon is not None:
        # Another machine's may be meant to be another one.
        here = chosen_server() is None
        other = "; restart it to run this version" if here and daemon != __version__ else ""
        print(f"daemon {daemon}{other}")


def _daemon_version(run_dir: RunDir) -> str | None:
    """None too where it may not be asked: the command's own version is told to anybody."""
    from tula.cli.client import DaemonError, NoDaemonError, find_daemon

    if chosen_server() is not None:
        with daemon_errors():
            return str(require_daemon(run_dir).get("/health")["version"])
    try:
        daemon = find_daemon(run_dir)
        return None if daemon is None else str(daemon.get("/health")["version"])
    except (DaemonError, NoDaemonError):
        return None
