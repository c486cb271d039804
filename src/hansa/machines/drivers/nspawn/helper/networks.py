"""Networks: a bridge each, with a subnet of its own, and rules for what may pass."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import time
from typing import Any

from hansa.machines.drivers.nspawn.helper.store import Store
from hansa.machines.drivers.nspawn.helper.tools import locked, read_json, run, write
from hansa.machines.drivers.nspawn.helper.words import Refusal

POOL = ipaddress.ip_network("10.199.0.0/16")
ALIAS = "hansa:"
"""Whose a bridge is: after it come the mark of a store and its folder."""
LOCK = "/run/lock/hansa-nspawn.lock"


def ensure_network(store: Store, name: str | None, egress: bool = True) -> Any:
    """The bridge of a network, with its subnet. The name ``None`` is where machines are that belong to none."""
    label = name or "_"
    bridge = store.short("hz", f"network/{label}")
    with locked(LOCK):
        found = read_json(store.network(label))
        if found is None or not has_link(bridge):
            clear_dead()
            clear_unwritten(store)
        if found is None:
            found = {"bridge": bridge, "subnet": str(free_subnet(store)), "egress": egress}
            write(store.network(label), json.dumps(found))
        if not has_link(bridge):
            run("ip", "link", "add", bridge, "type", "bridge")
            run("ip", "link", "set", bridge, "alias", f"{ALIAS}{store.mark}:{store.root}"[:255])
        gateway = ipaddress.ip_network(found["subnet"])[1]
        run("ip", "address", "replace", f"{gateway}/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        run("nft", "-f", "-", input=rules(bridge, found["subnet"]))
        if found["egress"]:
            with open("/proc/sys/net/ipv4/ip_forward", "r+", encoding="ascii") as file:
                if file.read().strip() != "1":
                    file.write("1")
    return found


def clear_dead() -> None:
    """Remove bridges of stores that are gone and rules of bridges that are gone. Call it with the lock.

    What was killed half-way, or whose folder somebody removed, would else change what passes in networks of now: a
    subnet is given again, and where bridges are filtered (br_netfilter), rules see frames of every bridge.
    """
    for bridge in sorted(os.listdir("/sys/class/net")):
        if bridge.startswith("hz") and is_dead(bridge):
            run("ip", "link", "delete", bridge)
    for table in dead_tables():
        run("nft", "-f", "-", input=f"table inet {table}\ndelete table inet {table}\n")


def clear_unwritten(store: Store) -> None:
    """Remove what somebody was killed over while he wrote it. Call it with the lock: nobody else writes."""
    for name in store.names("networks"):
        if name.endswith(".tmp"):
            os.unlink(os.path.join(store.root, "networks", name))


def dead_tables() -> list[str]:
    """Tables of rules, of any store, whose bridge is gone."""
    listed = [line.split() for line in run("nft", "list", "tables").splitlines()]
    return [words[2] for words in listed if words[:2] == ["table", "inet"] and is_dead_table(words[2])]


def is_dead_table(name: str) -> bool:
    return re.fullmatch(r"hz[0-9a-f]{10}", name) is not None and not has_link(name)


def has_link(name: str) -> bool:
    return os.path.isdir(f"/sys/class/net/{name}")


def is_dead(bridge: str) -> bool:
    """Whether a bridge is of a store whose folder is gone, and nothing is plugged into it."""
    with contextlib.suppress(OSError):
        with open(f"/sys/class/net/{bridge}/ifalias", encoding="utf-8") as file:
            root = store_of_alias(file.read().strip())
        return bool(root) and not os.path.isdir(root) and not os.listdir(f"/sys/class/net/{bridge}/brif")
    return False  # it is no bridge, or goes away just now


def store_of_alias(alias: str) -> str:
    """The folder in a bridge's alias; empty: none is known. Pure."""
    root = alias[len(ALIAS) :].partition(":")[2] if alias.startswith(ALIAS) else ""
    return root if root.startswith("/") else ""


def rules(bridge: str, subnet: str) -> str:
    """What may pass: out to the world, answers back; not to this computer's services, nor to other networks. Pure."""
    return f"""
table inet {bridge}
delete table inet {bridge}
table inet {bridge} {{
  chain forward {{ type filter hook forward priority filter; policy accept;
    iifname "{bridge}" oifname "{bridge}" accept
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" drop
    iifname "{bridge}" oifname "hz*" drop
    iifname "{bridge}" ip daddr 169.254.0.0/16 drop
  }}
  chain input {{ type filter hook input priority filter; policy accept;
    iifname "{bridge}" ct state established,related accept
    iifname "{bridge}" meta l4proto {{ icmp, ipv6-icmp }} accept
    iifname "{bridge}" drop
  }}
  chain postrouting {{ type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
  }}
}}
"""


def free_subnet(store: Store) -> Any:
    """A subnet of the pool that nothing on this computer has a route to."""
    routes = json.loads(run("ip", "-j", "-4", "route", "show", "table", "all") or "[]")
    taken = [ipaddress.ip_network(one["dst"], strict=False) for one in routes if one["dst"][:1].isdigit()]
    known = (read_json(store.network(name[:-5])) for name in store.names("networks"))
    taken += [ipaddress.ip_network(one["subnet"]) for one in known if one]
    for subnet in POOL.subnets(new_prefix=24):
        if not any(subnet.overlaps(one) for one in taken):
            return subnet
    raise Refusal("network", f"no subnet of {POOL} is free")


def users_of(store: Store, label: str) -> list[Any]:
    specs = [store.machine(key).spec() for key in store.names("machines")]
    return [spec for spec in specs if spec and (spec["network"] or "_") == label]


def verb_network(store: Store, name: str, egress: bool) -> dict[str, Any]:
    return {"subnet": ensure_network(store, name, egress)["subnet"]}


def verb_remove_network(store: Store, name: str | None) -> dict[str, Any]:
    """Remove a network that no machine is in; says whether it is gone."""
    label = name or "_"
    with locked(store.lock), locked(LOCK):
        if users_of(store, label):
            return {"gone": False}
        found = read_json(store.network(label))
        if found is not None:
            run("nft", "-f", "-", input=f"table inet {found['bridge']}\ndelete table inet {found['bridge']}\n")
            if has_link(found["bridge"]):
                run("ip", "link", "delete", found["bridge"])
            os.unlink(store.network(label))
        clear_unwritten(store)
    return {"gone": True}


def network_config(address: str, subnet: str) -> dict[str, Any]:
    """For cloud-init (version 2). Pure but for the names of this computer's resolvers."""
    return {
        "version": 2,
        "ethernets": {
            "host0": {
                "addresses": [f"{address}/24"],
                "routes": [{"to": "0.0.0.0/0", "via": str(ipaddress.ip_network(subnet)[1])}],
                "nameservers": {"addresses": resolvers()},
            }
        },
    }


def resolvers() -> list[str]:
    """Name servers that a guest can reach too."""
    for path in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
            given = [line.split()[1] for line in file if line.startswith("nameserver ") and len(line.split()) > 1]
            if found := [one for one in given if not one.startswith(("127.", "::1"))]:
                return found
    return []


def isolate(port: str) -> None:
    """A port of a bridge that reaches the computer and the world, and no other such port."""
    for _ in range(400):
        if os.path.exists(f"/sys/class/net/{port}/brport"):
            run("ip", "link", "set", "dev", port, "type", "bridge_slave", "isolated", "on")
            return
        time.sleep(0.01)
