"""Whether something can run at a place: a table of rules. Each has a quick test, and words for when it fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hansa.kernel.status import Party
from hansa.placement.model import Candidate, Finding, Flavour, Gpu, Request, Work

_NUMBER = re.compile(r"\d+")
Test = Callable[[Request, Candidate], bool]


@dataclass(frozen=True)
class Rule:
    """One way to be unfit. ``matters``: whether the request can fail it at all, at any place."""

    reason: str
    matters: Callable[[Request], bool]
    fails: Test
    say: Callable[[Request, Candidate], tuple[str, str, Party]]
    """The sentence, what would change it, and who could."""


def rules_for(request: Request) -> list[Rule]:
    """The rules that can fail for this request."""
    return [rule for rule in RULES if rule.matters(request)]


def first_reason(rules: Iterable[Rule], request: Request, candidate: Candidate) -> str | None:
    """The code of the first rule that fails; None: it can run there."""
    for rule in rules:
        if rule.fails(request, candidate):
            return rule.reason
    return None


def findings(request: Request, candidate: Candidate) -> tuple[Finding, ...]:
    """Every reason why it cannot run there, in words."""
    found: list[Finding] = []
    for rule in rules_for(request):
        if not rule.fails(request, candidate):
            continue
        if rule.reason == REFUSED:
            found += [
                Finding(one.reason, one.message, one.remedy or _REFUSED_REMEDY, one.waiting_on)
                for one in candidate.refusals
            ]
        else:
            found.append(Finding(rule.reason, *rule.say(request, candidate)))
    return tuple(found)


REFUSED = "placement.refused"
OWN_CHOICE = frozenset({"placement.not_asked", "placement.not_wanted"})
"""Reasons that the asker gave: places that are out by these are of no interest beside others."""
BATCH_SYSTEMS = frozenset({"slurm"})
_REFUSED_REMEDY = "Wait, or ask the site."


def fitting_flavour(request: Request, candidate: Candidate) -> Flavour | None:
    """The smallest flavour that fits, within quota and grant: least GPUs, cores, memory, disk, then by name."""
    return next(iter(fitting_flavours(request, candidate)), None)


def fitting_flavours(request: Request, candidate: Candidate) -> list[Flavour]:
    """All flavours that fit, the smallest first; those within quota and grant only, where there are any."""
    fit = [one for one in candidate.flavours or () if _flavour_fits(request, one)]
    within = [one for one in fit if not _quota_lacks_of(request, candidate, one)]
    within = [one for one in within if not (candidate.demands_grant and _grant_lacks_of(request, candidate, one))]
    return sorted(within or fit, key=_size)


def _size(one: Flavour) -> tuple[int, int, int, int, str]:
    return sum(gpu.count for gpu in one.gpus), one.cores, one.memory_mib, one.disk_mib or 0, one.name


def _flavour_fits(request: Request, one: Flavour) -> bool:
    if request.flavour is not None and one.name != request.flavour:
        return False
    if one.cores < request.cores or one.memory_mib < request.memory_mib:
        return False
    if one.disk_mib is not None and one.disk_mib < max(request.disk_mib, request.image_disk_mib):
        return False
    return not request.gpus or has_gpus(request, one.gpus)


def has_gpus(request: Request, gpus: Iterable[Gpu]) -> bool:
    """Whether so many GPUs as are asked are there, each like what is asked."""
    return gpus_like(request, gpus) >= request.gpus


def gpus_like(request: Request, gpus: Iterable[Gpu]) -> int:
    """How many GPUs are like what is asked. One whose memory nobody knows may be."""
    model = (request.gpu_model or "").lower()
    memory = request.gpu_memory_mib
    return sum(
        one.count for one in gpus if model in one.model.lower() and (one.memory_mib is None or one.memory_mib >= memory)
    )


def version_key(version: str) -> tuple[int, ...]:
    """``2.17`` before ``2.28``, as numbers."""
    return tuple(int(number) for number in _NUMBER.findall(version))


def _any(_request: Request) -> bool:
    return True


def _is_machine(request: Request) -> bool:
    return request.work is Work.MACHINE


def _over(asked: int, there: int | None) -> bool:
    return there is not None and asked > there


def _lacks(words: Iterable[str], there: frozenset[str] | None) -> list[str]:
    return [] if there is None else sorted(set(words) - there)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _more(what: str, unit: str) -> Callable[[Request, Candidate], tuple[str, str, Party]]:
    """Words for a number of the request that is larger than the candidate's of the same name."""

    def say(request: Request, candidate: Candidate) -> tuple[str, str, Party]:
        asked, there = getattr(request, what), getattr(candidate, what)
        return (
            f"{asked:,} {unit} asked, {there:,} there.",
            f"Ask for at most {there:,} {unit}.",
            Party.USER,
        )

    return say


def _say_gpus(request: Request, candidate: Candidate) -> tuple[str, str, Party]:
    there = candidate.gpus or ()
    like = gpus_like(request, there)
    wish = f" like {request.gpu_model}" if request.gpu_model else ""
    wish += f" with {request.gpu_memory_mib:,} MiB each" if request.gpu_memory_mib else ""
    have = _listed(sorted({one.model or "GPU" for one in there})) or "none"
    remedy = f"Ask for what is there ({have})." if there else "Ask for no GPU."
    return f"{request.gpus} GPUs{wish} asked, {like} there.", remedy, Party.USER


def _no_flavour(request: Request, candidate: Candidate) -> bool:
    return candidate.flavours is not None and not any(_flavour_fits(request, one) for one in candidate.flavours)


def _say_flavour(request: Request, candidate: Candidate) -> tuple[str, str, Party]:
    flavours = candidate.flavours or ()
    names = {one.name for one in flavours}
    if request.flavour is not None and request.flavour not in names:
        return f"It has no flavour {request.flavour}.", _one_of("flavours", names), Party.USER
    if not flavours:
        return "No flavour is open to you there.", "Ask the site for one.", Party.SITE
    gpus = f", {request.gpus} GPUs {request.gpu_model or ''}".rstrip() if request.gpus else ""
    memory = f", {request.memory_mib:,} MiB" if request.memory_mib else ""
    disk_gib = max(request.disk_mib, request.image_disk_mib) // 1024
    disk = f", {disk_gib:,} GiB of disk" if disk_gib else ""
    size = f"{request.cores:,} cores{memory}{gpus}{disk}"
    largest = max(flavours, key=lambda one: (one.cores, one.memory_mib))
    return (
        f"No flavour has {size}.",
        f"Ask for less: {largest.name} has {largest.cores} cores and {largest.memory_mib:,} MiB.",
        Party.USER,
    )


def _one_of(what: str, names: Iterable[str]) -> str:
    some = sorted(names)
    more = f" and {len(some) - 5} more" if len(some) > 5 else ""
    return f"Its {what}: {_listed(some[:5])}{more}." if some else f"It has no {what} for you; ask the site."


def _sizes(request: Request, candidate: Candidate) -> list[Flavour]:
    """What one would take of quota and grant: of machines each flavour that fits, the smallest first; else as asked."""
    if request.work is not Work.MACHINE or not candidate.flavours:
        return [Flavour("", request.cores, request.memory_mib)]
    return sorted((one for one in candidate.flavours if _flavour_fits(request, one)), key=_size)


def _quota_lacks(request: Request, candidate: Candidate) -> list[str]:
    """What the quota lacks for every flavour that fits, told of the smallest."""
    if candidate.quota is None:
        return []
    lacks = [_quota_lacks_of(request, candidate, one) for one in _sizes(request, candidate)]
    return lacks[0] if lacks and all(lacks) else []


def _quota_lacks_of(request: Request, candidate: Candidate, size: Flavour) -> list[str]:
    quota = candidate.quota
    if quota is None:
        return []
    rows = (
        (request.count, quota.machines, "machines"),
        (request.count * size.cores, quota.cores, "cores"),
        (request.count * size.memory_mib, quota.memory_mib, "MiB of memory"),
        (request.count * request.gpus, quota.gpus, "GPUs"),
        (request.storage_gib, quota.storage_gib, "GiB of storage"),
    )
    return [f"{asked:,} {unit} asked, {free:,} free" for asked, free, unit in rows if free is not None and asked > free]


def _grant_lacks(request: Request, candidate: Candidate) -> list[str]:
    """What the grant lacks for every flavour that fits and the quota has room for, told of the smallest."""
    if candidate.grant is None:
        return []
    sizes = _sizes(request, candidate)
    within = [one for one in sizes if not _quota_lacks_of(request, candidate, one)]
    lacks = [_grant_lacks_of(request, candidate, one) for one in within or sizes]
    return lacks[0] if lacks and all(lacks) else []


def _grant_lacks_of(request: Request, candidate: Candidate, size: Flavour) -> list[str]:
    left = candidate.grant
    if left is None:
        return []
    number = request.count * request.nodes
    asked_s = number * size.cores * request.wall_time_s
    gpus = sum(one.count for one in size.gpus) or request.gpus  # a machine has all that its flavour has
    rows = (
        (number * size.cores, left.cores, "cores"),
        (number * size.memory_mib, left.memory_mib, "MiB of memory"),
        (number * gpus, left.gpus, "GPUs"),
        (request.storage_gib, left.storage_gib, "GiB of storage"),
    )
    found = [
        f"{asked:,} {unit} asked, {free:,} left" for asked, free, unit in rows if free is not None and asked > free
    ]
    if left.core_s is not None and (left.core_s <= 0 or asked_s > left.core_s):
        found.append(f"{asked_s / 3600:,.1f} core hours asked, {max(0.0, left.core_s) / 3600:,.1f} left")
    return found


def _is_over_grant(request: Request, candidate: Candidate) -> bool:
    return candidate.demands_grant and bool(_grant_lacks(request, candidate))


def _say_grant(request: Request, candidate: Candidate) -> tuple[str, str, Party]:
    lacks = _listed(_grant_lacks(request, candidate))
    whose = (candidate.grant.limited_by if candidate.grant else "") or f"the grant of {request.vo}"
    return (
        f"{whose[0].upper()}{whose[1:]} does not suffice: {lacks}.",
        f"Ask for less, or ask a manager of {request.vo} for more.",
        Party.VO_MANAGER,
    )


def _say_no_grant(request: Request, candidate: Candidate) -> tuple[str, str, Party]:
    if request.vo is None:
        return (
            "It takes work of VOs with a capacity grant only, and this is for no VO.",
            "Say for which VO: --vo NAME.",
            Party.USER,
        )
    why = f" {candidate.no_grant}" if candidate.no_grant else ""
    return (
        f"{request.vo} has no capacity grant there.{why}",
        f"A manager of {request.vo} can ask for one: hansa grant ask {candidate.site} --vo {request.vo}.",
        Party.VO_MANAGER,
    )


def _say_where(request: Request, candidate: Candidate) -> tuple[str, str, Party]:
    return f"Only {_listed(request.sites)} will do.", f"Add {candidate.site} to the sites asked for.", Party.USER


def _missing_data(request: Request, candidate: Candidate) -> list[str]:
    return [one.name for one in request.data if one.is_required and one.name not in candidate.data]


def _unlike(name: str, words: str) -> Rule:
    """A rule for a word of the platform: the one asked must be the one that is there."""

    def say(request: Request, candidate: Candidate) -> tuple[str, str, Party]:
        there: Any = getattr(candidate, name)
        text = _listed(sorted(there)) if isinstance(there, frozenset) else there
        return f"{words} {getattr(request, name)} asked, {text} there.", f"Ask for {text}.", Party.USER

    def fails(request: Request, candidate: Candidate) -> bool:
        there: Any = getattr(candidate, name)
        if there is None:
            return False
        asked = getattr(request, name)
        return asked not in there if isinstance(there, frozenset) else bool(asked != there)

    return Rule("placement.platform", lambda r: getattr(r, name) is not None, fails, say)


def _missing(asked: str, there: str, reason: str, sentence: str, remedy: str, party: Party) -> Rule:
    """A rule for a set of words of the request that must all be there."""
    return Rule(
        reason,
        lambda r: bool(getattr(r, asked)),
        lambda r, c: bool(_lacks(getattr(r, asked), getattr(c, there))),
        lambda r, c: (sentence.format(_listed(_lacks(getattr(r, asked), getattr(c, there)))), remedy, party),
    )


def _absent(asked: str, there: str, reason: str, what: str, plural: str) -> Rule:
    """A rule for one name of the request that must be among the candidate's."""
    return Rule(
        reason,
        lambda r: getattr(r, asked) is not None,
        lambda r, c: getattr(c, there) is not None and getattr(r, asked) not in getattr(c, there),
        lambda r, c: (f"It has no {what} {getattr(r, asked)}.", _one_of(plural, getattr(c, there)), Party.USER),
    )


RULES: tuple[Rule, ...] = (
    Rule("placement.not_asked", lambda r: bool(r.sites), lambda r, c: c.site not in r.sites, _say_where),
    Rule(
        "placement.not_wanted",
        lambda r: bool(r.banned_sites),
        lambda r, c: c.site in r.banned_sites,
        lambda r, c: ("You do not want this site.", f"Leave {c.site} out of the banned sites.", Party.USER),
    ),
    Rule(REFUSED, _any, lambda r, c: bool(c.refusals), lambda r, c: ("", "", Party.SITE)),
    Rule("placement.cores", _any, lambda r, c: c.cores is not None and r.cores > c.cores, _more("cores", "cores")),
    Rule(
        "placement.memory",
        lambda r: r.memory_mib > 0,
        lambda r, c: c.memory_mib is not None and r.memory_mib > c.memory_mib,
        _more("memory_mib", "MiB of memory"),
    ),
    Rule(
        "placement.disk",
        lambda r: r.disk_mib > 0,
        lambda r, c: _over(r.disk_mib, c.disk_mib),
        _more("disk_mib", "MiB of disk"),
    ),
    Rule(
        "placement.wall_time",
        lambda r: r.wall_time_s > 0,
        lambda r, c: c.wall_time_s is not None and r.wall_time_s > c.wall_time_s,
        _more("wall_time_s", "s"),
    ),
    Rule(
        "placement.gpus",
        lambda r: r.gpus > 0,
        lambda r, c: c.gpus is not None and not has_gpus(r, c.gpus),
        _say_gpus,
    ),
    Rule(
        "placement.nodes",
        lambda r: r.nodes > 1,
        lambda r, c: c.nodes is not None and r.nodes > c.nodes,
        _more("nodes", "nodes"),
    ),
    Rule(
        "placement.batch_system",
        lambda r: r.needs_batch_system,
        lambda r, c: c.kind not in BATCH_SYSTEMS,
        lambda r, c: ("It has no batch system.", "Ask without options of a batch system.", Party.USER),
    ),
    _missing("tags", "tags", "placement.tags", "It lacks {}.", "Ask without these tags.", Party.USER),
    Rule(
        "placement.required_tags",
        _any,
        lambda r, c: bool(c.required_tags) and not c.required_tags <= r.tags,
        lambda r, c: (
            f"It takes only work that asks for {_listed(sorted(c.required_tags - r.tags))}.",
            f"Ask for it: {' '.join(f'--tag {one}' for one in sorted(c.required_tags - r.tags))}.",
            Party.USER,
        ),
    ),
    _unlike("os", "System"),
    _unlike("arch", "Processor"),
    Rule(
        "placement.platform",
        lambda r: r.glibc is not None,
        lambda r, c: c.glibc is not None and version_key(c.glibc) < version_key(r.glibc or ""),
        lambda r, c: (f"glibc {r.glibc} asked, {c.glibc} there.", "Use a container image.", Party.USER),
    ),
    _missing(
        "cpu_features",
        "cpu_features",
        "placement.platform",
        "Its processors have no {}.",
        "Ask for a plainer processor.",
        Party.USER,
    ),
    Rule(
        "placement.containers",
        lambda r: r.needs_containers,
        lambda r, c: c.has_containers is False,
        lambda r, c: ("It cannot run containers.", "Ask the site for user namespaces or Apptainer.", Party.SITE),
    ),
    _absent("vm_image", "vm_images", "placement.vm_image", "VM image", "VM images"),
    Rule("placement.flavour", _any, _no_flavour, _say_flavour),
    _absent("network", "networks", "placement.network", "network", "networks"),
    Rule(
        "placement.public_address",
        lambda r: r.needs_public_address,
        lambda r, c: c.has_public_addresses is False,
        lambda r, c: ("It has no public addresses for you.", "Do without one, or ask the site.", Party.SITE),
    ),
    Rule(
        "placement.quota",
        _is_machine,
        lambda r, c: bool(_quota_lacks(r, c)),
        lambda r, c: (
            f"The quota does not suffice: {_listed(_quota_lacks(r, c))}.",
            "Delete what you do not need there, or ask the site for more.",
            Party.SITE,
        ),
    ),
    Rule(
        "placement.data",
        lambda r: r.is_data_required and any(one.is_required for one in r.data),
        lambda r, c: bool(_missing_data(r, c)),
        lambda r, c: (
            f"It has no replica of {_listed(_missing_data(r, c))}.",
            "Have it replicated there, or let the data travel.",
            Party.USER,
        ),
    ),
    Rule("placement.no_grant", _any, lambda r, c: c.demands_grant and c.grant is None, _say_no_grant),
    Rule("placement.grant_used_up", _any, _is_over_grant, _say_grant),
)
