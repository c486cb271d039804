"""The template: an OpenStack that was set up once, with its first contents, at rest. A start copies it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from tests.support.openstack import contents
from tests.support.openstack.cloud import Cloud
from tests.support.openstack.layout import Layout, some_address
from tests.support.openstack.packages import CACHE, SERVICES, Needs, locked

HERE = Path(__file__).resolve().parent
KEPT = ("mysql", "fernet", "credentials", "images", "state")


def ensure(needs: Needs) -> Path:
    """The template of what this checkout says an OpenStack is, made once."""
    target = CACHE / f"template-{_fingerprint()}"
    with locked(CACHE / "template.lock"):
        if not target.exists():
            print("OpenStack: setting one up as a template …", flush=True)
            _make(needs, target)
    return target


def copy(needs: Needs, root: Path) -> Cloud:
    """A cloud at an address of its own from the template; not started."""
    template = ensure(needs)
    for name in KEPT:
        if (template / name).exists():
            shutil.copytree(template / name, root / name)
    old = (template / "address").read_text()
    cloud = Cloud(Layout(root, some_address(), needs.venv))
    cloud.start_database()
    new = cloud.place.address
    cloud.sql(
        f"UPDATE keystone.endpoint SET url = REPLACE(url, '{old}', '{new}')",
        f"UPDATE nova_api.cell_mappings SET database_connection = REPLACE(database_connection, '{old}', '{new}')",
    )
    return cloud


def _make(needs: Needs, target: Path) -> None:
    root = Path(tempfile.mkdtemp(prefix="hansa-os-template-"))
    cloud = Cloud(Layout(root, some_address(), needs.venv))
    try:
        cloud.create_database()
        cloud.start_database()
        cloud.create_schemas()
        cloud.bootstrap_keystone()
        contents.fill_catalogue(cloud.place)
        cloud.start()
        contents.fill(cloud.place)
        cloud.forget_hypervisors()
        cloud.stop(gently=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=target.parent))
        for name in KEPT:
            if (root / name).exists():
                shutil.copytree(root / name, unfinished / name)
        (unfinished / "address").write_text(cloud.place.address)
        unfinished.rename(target)
    finally:
        cloud.stop()
        shutil.rmtree(root, ignore_errors=True)


def _fingerprint() -> str:
    said = hashlib.sha256(SERVICES.read_bytes())
    for name in (
        "cloud.py",
        "configs.py",
        "contents.py",
        "layout.py",
        "template.py",
        "inside/nova_all.py",
        "inside/cinder_all.py",
    ):
        said.update((HERE / name).read_bytes())
    return said.hexdigest()[:16]
