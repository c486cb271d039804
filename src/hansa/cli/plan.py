"""``hansa plan``: where something would run, without starting it."""

from __future__ import annotations

from typing import Any

import click

from hansa.cli import completion
from hansa.cli.jobs import examples
from hansa.cli.options import near_data, prefer_site
from hansa.cli.output import emit, output_option, write_table
from hansa.cli.session import note, open_session
from hansa.client import site_api
from hansa.client.draft import parse_platform
from hansa.client.units import parse_memory, parse_time
from hansa.placement.wire import Plan, PlanItem, PlanRequest


def _cells(item: PlanItem) -> dict[str, Any]:
    return {
        "rank": item.rank,
        "site": item.site,
        "endpoint": item.endpoint or None,
        "kind": item.kind,
        "score": round(item.score, 2) if item.rank else None,
        "flavour": item.flavour,
        "why": " ".join(one.message for one in item.findings) if item.findings else _best(item),
    }


def _best(item: PlanItem) -> str:
    """What speaks most for a place: the weightiest of its good factors."""
    good = sorted(item.factors, key=lambda one: one.weight * one.value, reverse=True)
    return " ".join(one.message for one in good[:2])


def _write_why(plan: Plan) -> None:
    """Every factor of those where it can run, every finding of the others."""
    for item in plan.items:
        place = f"{item.rank}. {item.site}" if item.rank else f"–  {item.site}"
        click.echo(f"{place} {item.endpoint}".rstrip())
        rows = [
            {"": "", "factor": one.name, "value": round(one.value, 2), "weight": one.weight, "why": one.message}
            for one in item.factors
        ]
        write_table(rows)
        for one in item.findings:
            click.echo(f"   {one.message}")
            click.echo(f"   What would change that: {one.remedy} (waits for: {one.waiting_on})")


@click.command(
    epilog=examples(
        "hansa plan --cores 16 --memory 64G --time 12h",
        "hansa plan --gpus 1 --gpu-model A100 --why",
        "hansa plan --machine --image debian-12 --cores 4 --count 3 --vo vo.example.org",
    )
)
@click.option("--machine", is_flag=True, help="For machines. [default: for a task of a job]")
@click.option("--cores", type=int, metavar="N", help="Cores. [default: 1]")
@click.option("--memory", metavar="SIZE", help="Memory: 512M, 2G.")
@click.option("--time", "wall_time", metavar="TIME", help="Wall time of a task, lifetime of a machine: 2h, 1-00:00:00.")
@click.option("--gpus", type=int, default=0, metavar="N", help="GPUs.")
@click.option("--gpu-model", metavar="NAME", help="Part of the name of the GPUs: A100.")
@click.option("--gpu-memory", metavar="SIZE", help="Memory of each GPU: 40G.")
@click.option("--disk", metavar="SIZE", help="Free disk: 20G.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="What the site must offer by name.")
@click.option("--data", multiple=True, metavar="NAME", help="A data set that must be at the site.")
@near_data
@click.option("--platform", multiple=True, metavar="WHAT", help="el9, debian12, x86_64, glibc=2.28 or avx2.")
@click.option("--image", "vm_image", metavar="NAME", help="VM image, by its name at the site.")
@click.option("--flavour", metavar="NAME", help="Flavour. [default: the smallest that fits]")
@click.option("--network", metavar="NAME", help="Network that the machines must be in.")
@click.option("--public", "public_address", is_flag=True, help="With a public address.")
@click.option("--count", type=int, default=1, metavar="N", help="So many machines.")
@click.option("--site", "sites", multiple=True, metavar="SITE", shell_complete=completion.sites, help="Only there.")
@click.option(
    "--ban-site", "banned_sites", multiple=True, metavar="SITE", shell_complete=completion.sites, help="Not there."
)
@prefer_site
@click.option("--vo", metavar="VO", help="Virtual organisation. [default: the only one]")
@click.option("--vo-group", default="", metavar="GROUP", help="Group of the VO.")
@click.option("--why", is_flag=True, help="Every factor of each place, and what would change each refusal.")
@output_option()
def plan(
    *,
    machine: bool,
    memory: str | None,
    wall_time: str | None,
    gpu_memory: str | None,
    disk: str | None,
    platform: tuple[str, ...],
    why: bool,
    form: str,
    **asked: Any,
) -> None:
    """Show where a task or machines would run now: ranked, with the reasons, and why not elsewhere.

    Nothing is started. Exit code 5 where it can run nowhere now.
    """
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    request = PlanRequest(
        work="machine" if machine else "job",
        memory_mib=parse_memory(memory) if memory else None,
        wall_time_s=parse_time(wall_time) if wall_time else None,
        gpu_memory_mib=parse_memory(gpu_memory) if gpu_memory else 0,
        disk_mib=parse_memory(disk) if disk else 0,
        **parse_platform(platform),
        **asked,
    )
    found = open_session().run(site_api.plan(request))
    if form == "table" and why:
        _write_why(found)
    else:
        emit(found.items, form, _cells, lambda item: item.site)
    note(found.message)
    if not any(item.rank for item in found.items):
        raise SystemExit(5)
