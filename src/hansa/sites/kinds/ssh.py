"""A computer that is reached by SSH: a workstation, a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hansa.kernel.errors import Permanent, Temporary
from hansa.sites.kinds.base import Answer, Finding, KindSettings, Needs, Requirement, Sighting, Stage, State, Target
from hansa.sites.model import VoAccess
from hansa.sites.wire import Capacity, Facts

if TYPE_CHECKING:
    from hansa.engines.shell import Ran, Shell

HOST = r"^[A-Za-z0-9_][A-Za-z0-9._:%@-]*$"
"""Never like an option of ``ssh``, never with a blank."""
SURVEY = r"""
echo "cores $(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc)"
awk '/^MemTotal:/ {print "memory_kib", $2}' /proc/meminfo 2>/dev/null
awk '{print "load", $1}' /proc/loadavg 2>/dev/null
nvidia-smi --query-gpu=index,name --format=csv,noheader 2>/dev/null | sed 's/^/gpu /'
for name in podman apptainer singularity docker bwrap runc udocker; do
  command -v "$name" >/dev/null 2>&1 && echo "runtime $name"
done
command -v sbatch >/dev/null 2>&1 && echo slurm yes
exit 0
"""
CANARY_FOLDER = """
case "$1" in "~/"*) d="$HOME/${1#??}";; /*) d="$1";; *) d="$HOME/$1";; esac
umask 077; mkdir -p "$d/canaries" && cd "$d/canaries" || exit 1
find . -maxdepth 1 -name "${2%-*}-*" ! -name "$2.*" -exec rm -f {} +
"""
"""Goes to the folder ``$1``; of earlier canaries than that of the key ``$2`` nothing is left."""
_CANARY = (
    CANARY_FOLDER
    + """
"$3" -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo "$3 is no Python 3.9 there" >&2; exit 1; }
echo ran > "$2.ran" && [ "$(cat "$2.ran")" = ran ] && rm -f "$2.ran" && echo ran
"""
)


class SshSettings(KindSettings):
    """How a computer is reached."""

    host: str = Field(min_length=1, max_length=253, pattern=HOST)
    """Its name: a host name, or with ``own_config`` an entry ``Host`` of the owner's ``~/.ssh/config``."""
    port: int = Field(default=22, ge=1, le=65535)
    """TCP port."""
    user: str | None = Field(default=None, max_length=100, pattern=HOST)
    """User there. Default: of the VO's settings; with ``own_config`` what the SSH configuration says."""
    jump: str | None = Field(default=None, max_length=253, pattern=HOST)
    """Host to go through, as ``user@gate.example.org:22``."""
    own_config: bool = False
    """Whether the owner's own OpenSSH is used, with ``~/.ssh/config``, agent and one-time passwords. Only on the
    owner's own server."""
    config: str | None = Field(default=None, max_length=1000)
    """With ``own_config``: another configuration file than ``~/.ssh/config``."""
    known_hosts: str | None = Field(default=None, max_length=100_000)
    """Lines of ``known_hosts`` with the keys of the host (and of ``jump``)."""
    folder: str = Field(default="~/.hansa", max_length=1000)
    """Where Hansa may put its files there. Of a cluster: on a file system that its nodes share."""
    here: bool = False
    """Whether commands run on this server's own computer instead, as whoever runs the server: it is the login node.
    Only on the owner's own server; ``host`` is then a mere name."""
    python: str = Field(default="python3", max_length=1000, pattern=r"^[^\s\x00]+$")
    """Python 3.9 or later, as the nodes find it: a name or an absolute path."""
    transport: str = Field(default="auto", pattern="^(auto|https|spool)$")
    """How pilots reach this server: directly by ``https``, or by a ``spool`` of files that go through the SSH
    connection; ``auto`` is ``spool``, which always works."""
    max_pilots: int = Field(default=1, ge=1, le=10_000)
    """Pilots that may wait or run here at a time. Default: 1, of a cluster 20."""
    tags: list[str] = Field(default_factory=list, max_length=200)
    """What jobs may ask for by name: ``bigmem``, or ``data:NAME`` for a data set that is there."""
    required_tags: list[str] = Field(default_factory=list, max_length=200)
    """Only jobs that ask for these are taken."""


class SshKind:
    """One computer behind SSH."""

    name = "ssh"
    settings: type[KindSettings] = SshSettings
    has_url = False

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:
        return ssh_needs(target.settings, probe_s, discover_s)

    async def probe(self, target: Target) -> Finding:
        return await probe_shell(target, "echo hansa", lambda said: "hansa" in said)

    async def discover(self, target: Target, vo: str | None) -> Facts:
        said = await survey(target, vo)
        return Facts(capacity=(found := parse_survey(said)), load=parse_load(said, found.cores))

    canary_load = "A process of less than a second"

    async def canary(self, target: Target, vo: str | None, key: str) -> Sighting:
        """What a pilot needs, in small: a file in the folder, and Python. It is over with this call."""
        done = await run_there(target, vo, _CANARY, target.settings.folder, key, target.settings.python)
        if done.status != 0:
            raise Permanent(f"A process fails there: {done.complaint}.")
        return Sighting(State.RAN, "A canary ran at once.", 0.0)

    async def withdraw(self, target: Target, vo: str | None, key: str) -> None:
        """There is never anything out."""


def ssh_needs(settings: SshSettings, probe_s: float, discover_s: float) -> Needs:
    """What any endpoint behind SSH must allow."""
    calls = round(3600 / probe_s + 3600 / discover_s)
    back = (Requirement("firewall", "TCP from where pilots run to this server, by HTTPS."),)
    pilots = back if settings.transport == "https" else ()
    if settings.here:
        files = Requirement("role", f"Files below {settings.folder}, and processes of whoever runs this server.")
        return Needs((files, *pilots), calls)
    where = settings.jump or f"{settings.host}:{settings.port}"
    login = Requirement("role", f"A login as {settings.user or 'the user of each VO'} with a key, without a password.")
    if settings.own_config:
        login = Requirement("role", "Your own login, as your ssh makes it: by agent, key or one-time password.")
        where = settings.jump or f"{settings.host}, as your SSH configuration leads there"
    files = Requirement("role", f"Files below {settings.folder}, and processes of that user.")
    return Needs((login, Requirement("firewall", f"TCP from this server to {where}."), files, *pilots), calls)


async def make_shell(target: Target, access: VoAccess | None = None) -> Shell:
    """A way to run commands there. Close it, unless it is the owner's own connection, which others share.

    Raises Permanent where it is not said how to sign in, or the address is not allowed.
    """
    from hansa.engines.shell import LocalShell
    from hansa.engines.ssh import OpensshShell, SshShell, SshTarget

    settings: SshSettings = target.settings
    if settings.here:
        return LocalShell(keep=["SLURM_CONF"])
    if settings.own_config:
        return OpensshShell(settings.host, target.sockets or Path("~/.ssh").expanduser(), own_options(settings))
    own = dict(access.settings) if access else {}
    user = own.get("user") or settings.user
    if not user or not target.credential.get("private_key"):
        raise Permanent("It is not said how to sign in there: a user, and a credential with private_key, are needed.")
    key, known = target.credential["private_key"], settings.known_hosts or ""
    if not known:
        raise Permanent(f"The key of {settings.host} is not known: put its line into known_hosts (ssh-keyscan).")
    gate = None
    if settings.jump:
        name, _, rest = settings.jump.rpartition("@")
        gate_host, _, gate_port = rest.partition(":")
        gate = SshTarget(
            gate_host, name or user, int(gate_port or 22), known, key, target.credential.get("passphrase"),
            resolve=target.egress.addresses,
        )  # fmt: skip
    first = gate or SshTarget(settings.host, user, settings.port)
    await target.egress.addresses(first.host, first.port)
    return SshShell(
        SshTarget(
            settings.host, user, settings.port, known, key, target.credential.get("passphrase"), gate,
            target.egress.addresses,
        )
    )  # fmt: skip


def own_options(settings: SshSettings) -> list[str]:
    """Options of the owner's ``ssh`` besides what the configuration says."""
    options = ["-F", str(Path(settings.config).expanduser())] if settings.config else []
    if settings.user:
        options += ["-l", settings.user]
    if "port" in settings.model_fields_set:
        options += ["-p", str(settings.port)]
    if settings.jump:
        options += ["-J", settings.jump]
    return options


async def probe_shell(target: Target, script: str, is_good: Callable[[str], bool]) -> Finding:
    """Sign in and run something small."""
    settings: SshSettings = target.settings
    access = next(iter(target.vos.values()), None)
    try:
        shell = await make_shell(target, access)
    except Permanent as error:
        is_open = not settings.own_config and not target.credential and not settings.here
        return Finding(Answer.UNKNOWN if is_open else Answer.DOWN, Stage.SIGN_IN, str(error), "sites.ssh_refused")
    try:
        ran = await shell.script(script, deadline_s=15)
    except Permanent as error:
        if settings.own_config and "ost key" not in str(error):
            message = f"Your login at {settings.host} has lapsed, or was never made."
            hint = f" Sign in once: hansa site login {target.site}"
            return Finding(Answer.LOGIN, Stage.SIGN_IN, message + hint, "sites.login")
        return Finding(Answer.DOWN, Stage.SIGN_IN, str(error), "sites.ssh_refused")
    except Temporary as error:
        return Finding(Answer.DOWN, Stage.REACH, str(error), "sites.ssh_away")
    finally:
        if not settings.own_config:
            await shell.close()
    if ran.status != 0 or not is_good(ran.text):
        return Finding(Answer.DOWN, Stage.LIST, f"Commands fail there: {ran.complaint}.", "sites.ssh_commands")
    return Finding(Answer.UP, Stage.LIST, f"{shell.name} answers.")


async def survey(target: Target, vo: str | None) -> str:
    """What a computer says of itself. Raises Temporary or Permanent."""
    return await ask(target, vo, SURVEY)


async def ask(target: Target, vo: str | None, script: str) -> str:
    """The output of a script there. Raises Temporary or Permanent."""
    ran = await run_there(target, vo, script)
    if ran.status != 0:
        raise Temporary(f"{target.settings.host} does not say what it has: {ran.complaint}.")
    return ran.text[:1_000_000]


async def run_there(target: Target, vo: str | None, script: str, *arguments: str) -> Ran:
    """How a script ended there, that has ``arguments`` as ``$1`` …. Raises Temporary or Permanent."""
    shell = await make_shell(target, target.vos.get(vo or ""))
    try:
        return await shell.script(script, *arguments, deadline_s=45)
    finally:
        if not target.settings.own_config:
            await shell.close()


def parse_load(said: str, cores: int) -> float | None:
    """How much of a computer is in use, by the load in an answer to :data:`SURVEY`."""
    for line in said.splitlines():
        word, _, value = line.strip().partition(" ")
        if word == "load" and cores and value.replace(".", "", 1).isdecimal():
            return min(1.0, float(value) / cores)
    return None


def parse_survey(said: str) -> Capacity:
    """The answer to :data:`SURVEY`. Lines that are not understood (of a login banner) are passed over."""
    cores, memory_mib = 0, 0
    gpus, runtimes = [], []
    for line in said.splitlines():
        word, _, value = line.strip().partition(" ")
        if word == "cores" and value.isdecimal():
            cores = int(value)
        elif word == "memory_kib" and value.isdecimal():
            memory_mib = int(value) // 1024
        elif word == "gpu" and value:
            gpus.append(value)
        elif word == "runtime" and value:
            runtimes.append(value)
    return Capacity(cores, memory_mib, gpus, runtimes)
