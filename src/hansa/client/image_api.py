"""Calls of the API about VM images: the catalogue, endorsements, policies, lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from hansa.client.api import _read, call, get, part, send
from hansa.client.effects import FileBody, Operation, Request
from hansa.images.wire import (
    ImagePolicy,
    NewEndorsement,
    NewImage,
    NewSubscription,
    NewVersion,
    Subscription,
    SubscriptionPage,
    VmImage,
    VmImagePage,
    Withdrawal,
)
from hansa.machines.sync_wire import ImagePlacePage


def vm_images(after: str | None = None) -> Operation[VmImagePage]:
    return (yield from get(VmImagePage, "/vm-images", after=after))


def vm_image(name: str) -> Operation[VmImage]:
    return (yield from get(VmImage, f"/vm-images/show/{quote(name)}"))


def add_vm_image(new: NewImage) -> Operation[VmImage]:
    return (yield from send(VmImage, "POST", "/vm-images", new, repeatable=False))


def add_vm_image_version(name: str, new: NewVersion) -> Operation[VmImage]:
    return (yield from send(VmImage, "POST", f"/vm-images/versions/{quote(name)}", new, repeatable=False))


def upload_vm_image(name: str, version: str, body: FileBody) -> Operation[VmImage]:
    """The content of a version that waits for it."""
    path = f"/vm-images/upload/{part(version)}/{quote(name)}"
    return _read(VmImage, (yield from call(Request("PUT", path, body=body, timeout_s=3600.0, repeatable=False))))


def download_vm_image(
    name: str, version: str | None, form: str | None, sink: Callable[[bytes], None], restart: Callable[[], object]
) -> Operation[None]:
    """The content of an image, piece by piece; ``restart`` is called when it begins anew."""
    query = {"version": version, "format": form}
    yield from call(Request("GET", f"/vm-images/download/{quote(name)}", query, sink=sink, restart=restart))


def withdraw_vm_image(name: str, version: str, why: str) -> Operation[VmImage]:
    return (yield from send(VmImage, "POST", f"/vm-images/withdraw/{part(version)}/{quote(name)}", Withdrawal(why)))


def endorse_vm_image(name: str, new: NewEndorsement) -> Operation[VmImage]:
    return (yield from send(VmImage, "POST", f"/vm-images/endorse/{quote(name)}", new))


def revoke_vm_image(name: str, vo_name: str) -> Operation[VmImage]:
    return (yield from send(VmImage, "DELETE", f"/vm-images/endorse/{part(vo_name)}/{quote(name)}"))


def image_policy(vo_name: str) -> Operation[ImagePolicy]:
    return (yield from get(ImagePolicy, f"/vos/{part(vo_name)}/image-policy"))


def set_image_policy(vo_name: str, policy: ImagePolicy) -> Operation[ImagePolicy]:
    return (yield from send(ImagePolicy, "PUT", f"/vos/{part(vo_name)}/image-policy", policy))


def image_places() -> Operation[ImagePlacePage]:
    """VM images at sites."""
    return (yield from get(ImagePlacePage, "/vm-image-places"))


def image_list(vo_name: str) -> Operation[dict[str, Any]]:
    return (yield from get(dict, f"/vos/{part(vo_name)}/image-list"))


def image_subscriptions(vo_name: str) -> Operation[SubscriptionPage]:
    return (yield from get(SubscriptionPage, f"/vos/{part(vo_name)}/image-subscriptions"))


def subscribe_images(vo_name: str, new: NewSubscription) -> Operation[Subscription]:
    return (yield from send(Subscription, "POST", f"/vos/{part(vo_name)}/image-subscriptions", new, repeatable=False))


def unsubscribe_images(vo_name: str, subscription: str) -> Operation[None]:
    yield from send(type(None), "DELETE", f"/vos/{part(vo_name)}/image-subscriptions/{part(subscription)}")
