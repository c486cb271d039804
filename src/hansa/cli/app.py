"""The tree of commands. A command's module is imported when it is used.

Plain click throughout, one kind of command for the hot paths and the others: recent Typer carries a private
copy of click, whose commands cannot live in one tree with click's own.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import click

from hansa.version import __version__

Where = tuple[str, str]
"""Module and name of a command in it, and its line in the help of its group."""


class LazyGroup(click.Group):
    """A group that imports its commands when they are asked for, and suggests the nearest for a wrong one."""

    def __init__(self, *args: Any, lazy: dict[str, Where], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self.commands and cmd_name in self._lazy:
            module, name = self._lazy[cmd_name][0].split(":")
            self.add_command(getattr(importlib.import_module(f"hansa.cli.{module}"), name), cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            close = difflib.get_close_matches(word, self._lazy, 3, 0.5)
            hint = f" Did you mean {' or '.join(close)}?" if close else f" There are: {', '.join(self._lazy)}."
            raise click.UsageError(f"There is no command {word!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, where[1]) for name, where in self._lazy.items()])


SETTINGS = {"help_option_names": ["-h", "--help"]}

JOB = {
    "submit": ("run:submit", "Submit a job and print its number."),
    "list": ("jobs:list_jobs", "List jobs, the newest first."),
    "show": ("jobs:show", "Show a job, or one of its tasks."),
    "logs": ("logs:logs", "Print the output of tasks, live and searched."),
    "wait": ("jobs:wait", "Wait for jobs to end."),
    "fetch": ("jobs:fetch_files", "Bring the output files here."),
    "results": ("jobs:results", "Print a row per task: parameters, state, resources, result.json."),
    "usage": ("usage:show", "Show what a task uses over its time, or how tasks differ."),
    "explain": ("jobs:explain", "Say why a job or task is where it is."),
    "shell": ("beside:shell", "Open a shell beside a running task."),
    "forward": ("beside:forward", "Make a port of a running task's node reachable here."),
    "kill": ("jobs:kill", "Stop jobs or tasks."),
    "hold": ("jobs:hold", "Give out no more tasks of jobs."),
    "release": ("jobs:release", "Let held jobs go on."),
    "retry": ("jobs:retry", "Run failed and killed tasks again."),
}
SITE = {
    "list": ("sites:list_sites", "List sites."),
    "show": ("sites:show", "Show a site."),
    "add": ("site_admin:add", "Join a site, by ten lines of YAML."),
    "check": ("site_admin:check", "Try a site without joining it."),
    "import": ("site_admin:import_sites", "Import the EGI federation's sites."),
    "update": ("site_admin:update", "Make a site what its file now says."),
    "remove": ("site_admin:remove", "Forget a site."),
    "env": ("site_openstack:env", "What a shell must know to use the OpenStack client there."),
    "openstack": ("site_openstack:run", "Run the OpenStack client there, or at all sites."),
    "login": ("site_login:login", "Sign in anew at a cluster of your own."),
    "probe": ("site_login:probe", "Look at a site now."),
    "health": ("site_health:site_health", "How a site is and was: availability, reliability."),
    "drain": ("site_admin:drain", "Let no new work start there."),
    "resume": ("site_admin:resume", "Let new work start there again."),
    "ban": ("site_admin:ban", "Let nothing new of a user or VO start there."),
    "unban": ("site_admin:unban", "Let a user or VO in again."),
    "downtime": ("app:downtime", "Downtimes: add, list, end."),
    "policy": ("site_admin:policy", "The site's own rules."),
    "admins": ("site_admin:admins", "Who administers a site."),
}
DOWNTIME = {
    "list": ("site_admin:list_downtimes", "List downtimes."),
    "add": ("site_admin:add_downtime", "Announce a downtime."),
    "end": ("site_admin:end_downtime", "End a downtime, or take it back."),
}
GRANT = {
    "list": ("grants:list_grants", "List capacity grants."),
    "show": ("grants:show", "Show what a site grants a VO, and what of it is used."),
    "ask": ("grants:ask", "Ask a site for capacity, as a VO manager."),
    "agree": ("grants:agree", "Agree to what a VO asks, as the site."),
    "refuse": ("grants:refuse", "Refuse what a VO asks, as the site."),
    "cap": ("grants:cap", "Share the hours out among users and groups, as a VO manager."),
}
PILOT = {"list": ("sites:list_pilots", "List pilots, which run the tasks at a site.")}
ADMIN = {
    "nspawn-helper": ("admin:nspawn_helper", "Print the program that containers need root for."),
    "backup": ("admin:backup", "Write a copy of the embedded server's data to a file."),
    "restore": ("admin:restore", "Put such a copy back."),
    "user": ("app:user", "Users of this server."),
    "client": ("app:client", "OpenID clients: applications that people sign in to with their account here."),
    "key": ("app:key", "The keys of this server."),
}
USER = {
    "add": ("admin:add_user", "Add a user and print the token that signs in."),
    "invite": ("admin:invite_user", "Make a link with which a user sets a password."),
    "list": ("admin:list_users", "List users."),
    "suspend": ("admin:suspend_user", "Let a user in no more."),
    "resume": ("admin:resume_user", "Let a user in again."),
}
CLIENT = {
    "add": ("admin:add_client", "Add an OpenID client."),
    "list": ("admin:list_clients", "List OpenID clients."),
    "remove": ("admin:remove_client", "Remove an OpenID client."),
}
KEY = {
    "rotate": ("admin:rotate_key", "Sign tokens with a new key."),
    "master": ("admin:rotate_master", "Make a new master key."),
}
VO = {
    "list": ("vos:list_vos", "List your virtual organisations."),
    "show": ("vos:show", "Show a virtual organisation."),
    "join": ("vos:join", "Join with an invitation."),
    "invite": ("vos:invite", "Make a link that lets one person join."),
    "member": ("app:member", "Members: list, set roles and groups, suspend, remove."),
    "group": ("vos:group", "Make a group."),
    "describe": ("vos:describe", "Say what it is for."),
    "create": ("vos:create", "Create a virtual organisation."),
    "rule": ("authority:rule", "Say who says who is in it: an issuer, or invitations."),
    "service": ("app:service", "Service accounts: programs that act for it."),
    "credential": ("app:credential", "What it signs in with at sites."),
    "suspend": ("vos:suspend", "Let no new work start for it."),
    "resume": ("vos:resume", "Let new work start again."),
}
MEMBER = {
    "list": ("vos:list_members", "List members."),
    "set": ("vos:set_member", "Give a member other roles or groups."),
    "suspend": ("vos:suspend_member", "Let a member start no new work."),
    "resume": ("vos:resume_member", "Let a member start new work again."),
    "remove": ("vos:remove_member", "Take a member out."),
}
SERVICE = {
    "list": ("authority:list_services", "List service accounts."),
    "add": ("authority:add_service", "Add a service account."),
    "remove": ("authority:remove_service", "Remove a service account."),
}
CREDENTIAL = {
    "list": ("authority:list_credentials", "List credentials, without their content."),
    "set": ("authority:set_credential", "Keep a credential for a site."),
    "remove": ("authority:revoke_authority", "Forget a credential, by its id."),
}
AUTHORITY = {
    "list": ("authority:list_authority", "List under what Hansa acts for you."),
    "revoke": ("authority:revoke_authority", "Take a grant back."),
}
IDENTITY = {
    "list": ("authority:list_identities", "List with what you sign in."),
    "unlink": ("authority:unlink", "Forget an identity."),
}
IMAGE = {
    "list": ("images:list_images", "List VM images."),
    "show": ("images:show", "Show a VM image, its versions, and who endorses it."),
    "add": ("images:add", "Add a VM image, or a version of one."),
    "build": ("image_build:build", "Make a Debian cloud image of packages."),
    "fetch": ("images:fetch", "Download a VM image."),
    "withdraw": ("images:withdraw", "Take a version back."),
    "endorse": ("images:endorse", "Let the members of a VO start it."),
    "revoke": ("images:revoke", "Let them start it no more."),
    "policy": ("images:policy", "Show or set what a VO lets its members start."),
    "sites": ("images:sites", "Show at which sites VM images are."),
    "publish": ("images:publish", "Print what a VO endorses as a HEPiX image list."),
    "follow": ("images:follow", "Follow an image list of others."),
    "followed": ("images:followed", "List the image lists that a VO follows."),
    "unfollow": ("images:unfollow", "Follow an image list no more."),
}
REGISTRY = {
    "login": ("registries:login", "Let your jobs get private container images from a registry."),
    "list": ("registries:list_logins", "List where your jobs sign in."),
    "logout": ("registries:logout", "Forget a login."),
}
MACHINE = {
    "create": ("machines:create", "Start a machine, and wait until it runs."),
    "list": ("machines:list_machines", "List your machines at all sites."),
    "show": ("machines:show", "Show a machine."),
    "ssh": ("machines:ssh", "Sign in, or run a command there."),
    "console": ("machines:console", "Print what its console said last."),
    "usage": ("usage:machine", "Show what it uses over its time."),
    "logs": ("machines:logs", "Print the log of its first boot."),
    "stop": ("machines:stop", "Shut it down; its disk stays."),
    "start": ("machines:start", "Start it again."),
    "reboot": ("machines:reboot", "Boot it anew."),
    "resize": ("machines:resize", "Give it another size."),
    "snapshot": ("volumes:snapshot", "Keep its disk as a VM image."),
    "snapshots": ("volumes:list_snapshots", "List what was kept so."),
    "rename": ("machines:rename", "Give it another name."),
    "change": ("machines:change", "Have it restarted when it fails, or not."),
    "extend": ("machines:extend", "Let it live longer."),
    "delete": ("machines:delete", "Remove it."),
    "explain": ("machines:explain", "Say why it is as it is."),
}
VOLUME = {
    "create": ("volumes:create", "Make a disk that outlives machines."),
    "list": ("volumes:list_volumes", "List your volumes at all sites."),
    "show": ("volumes:show", "Show a volume."),
    "attach": ("volumes:attach", "Give it to a machine."),
    "detach": ("volumes:detach", "Take it from its machine."),
    "delete": ("volumes:delete", "Remove it."),
    "explain": ("volumes:explain", "Say why it is as it is."),
}
DB = {"upgrade": ("admin:upgrade", "Bring the database's schema up to date.")}
TOP = {
    "run": ("run:run", "Run a command, follow it, bring its results: all in one."),
    "plan": ("plan:plan", "Show where something would run, and why."),
    "explain": ("explain:explain", "Say why a job, a task or a machine is where it is."),
    "job": ("app:job", "Jobs: submit, list, show, logs, fetch, results, kill, retry, …"),
    "site": ("app:site", "Sites: where jobs can run."),
    "grant": ("app:grant", "Capacity grants: what a site gives a VO."),
    "pilot": ("app:pilot", "Pilots."),
    "up": ("local:up", "Start the embedded server."),
    "down": ("local:down", "Stop the embedded server."),
    "status": ("local:status", "Show the server, its sites, and jobs by phase."),
    "doctor": ("local:doctor", "Look for what may be wrong, and say what to do."),
    "login": ("login:login", "Sign in at a server."),
    "logout": ("login:logout", "Sign out."),
    "token": ("login:token", "Print a fresh access token."),
    "authority": ("app:authority", "Under what Hansa acts while you are away: list, revoke."),
    "identity": ("app:identity", "With what you sign in at other issuers: list, unlink."),
    "vo": ("app:vo", "Virtual organisations: list, show, invite, join, members, …"),
    "machine": ("app:machine", "Virtual machines: create, list, ssh, stop, delete, …"),
    "volume": ("app:volume", "Disks that outlive machines: create, attach, detach, …"),
    "image": ("app:image", "VM images: add, endorse, publish, …"),
    "container": ("container:click_command", "Containers on this computer: pull, run, images, …"),
    "registry": ("app:registry", "Container registries: logins for your jobs."),
    "portal": ("portal:portal", "Open the portal in a browser."),
    "whoami": ("account:whoami", "Show who you are to the server."),
    "usage": ("account:usage", "Show what was used, where."),
    "server": ("local:server", "Run a server in the foreground."),
    "admin": ("app:admin", "Backup, restore, users, OpenID clients, keys."),
    "db": ("app:db", "The server's database."),
    "completion": ("completion:completion", "Print the completion script of a shell."),
}

job = LazyGroup("job", lazy=JOB, context_settings=SETTINGS, help="Jobs. A job is a command and its tasks.")
site = LazyGroup("site", lazy=SITE, context_settings=SETTINGS, help="Sites: where jobs can run.")
grant = LazyGroup("grant", lazy=GRANT, context_settings=SETTINGS, help="Capacity grants: what a site gives a VO.")
downtime = LazyGroup("downtime", lazy=DOWNTIME, context_settings=SETTINGS, help="Downtimes of a site.")
pilot = LazyGroup("pilot", lazy=PILOT, context_settings=SETTINGS, help="Pilots run the tasks at a site.")
user = LazyGroup("user", lazy=USER, context_settings=SETTINGS, help="Users of this server.")
client = LazyGroup("client", lazy=CLIENT, context_settings=SETTINGS, help="Applications that people sign in to.")
key = LazyGroup("key", lazy=KEY, context_settings=SETTINGS, help="The keys that sign tokens and seal secrets.")
vo = LazyGroup("vo", lazy=VO, context_settings=SETTINGS, help="Virtual organisations (VOs): research communities.")
member = LazyGroup("member", lazy=MEMBER, context_settings=SETTINGS, help="Members of a virtual organisation.")
service = LazyGroup("service", lazy=SERVICE, context_settings=SETTINGS, help="Service accounts: programs.")
credential = LazyGroup(
    "credential", lazy=CREDENTIAL, context_settings=SETTINGS, help="What a VO signs in with at sites."
)
authority = LazyGroup(
    "authority", lazy=AUTHORITY, context_settings=SETTINGS, help="Grants under which Hansa acts for you."
)
identity = LazyGroup("identity", lazy=IDENTITY, context_settings=SETTINGS, help="With what you sign in elsewhere.")
admin = LazyGroup("admin", lazy=ADMIN, context_settings=SETTINGS, help="For who runs a server.")
image = LazyGroup("image", lazy=IMAGE, context_settings=SETTINGS, help="VM images, which machines are started of.")
registry = LazyGroup(
    "registry", lazy=REGISTRY, context_settings=SETTINGS, help="Logins at container registries, for your jobs."
)
machine = LazyGroup("machine", lazy=MACHINE, context_settings=SETTINGS, help="Virtual machines, at any site.")
volume = LazyGroup("volume", lazy=VOLUME, context_settings=SETTINGS, help="Volumes: disks that outlive machines.")
db = LazyGroup("db", lazy=DB, context_settings=SETTINGS, help="The server's database.")
hansa = LazyGroup(
    "hansa",
    lazy=TOP,
    context_settings=SETTINGS,
    help="""One front door to all your compute: say what should run, watch it, get the results back.

\b
  hansa run -- echo hello
  hansa run --array 0-99 -- python fit.py --seed {i}
  hansa run --params sweep.csv -- python train.py --rate {rate}
""",
)
hansa = click.version_option(__version__, "--version", "-V", prog_name="hansa", message="%(prog)s %(version)s")(hansa)
