"""HTTP routes of VM images."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, Response

from hansa.identity.http import allowed, public
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.images.endorsing import EndorsementService
from hansa.images.formats import Format
from hansa.images.publishing import PublishedLists
from hansa.images.service import ImageService
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
from hansa.kernel.errors import Fault
from hansa.kernel.http import API, problem, provided

router = APIRouter(prefix=API, tags=["VM images"])
Images = Annotated[ImageService, Depends(provided(ImageService))]
Endorsing = Annotated[EndorsementService, Depends(provided(EndorsementService))]
Lists = Annotated[PublishedLists, Depends(provided(PublishedLists))]
Reader = Annotated[Caller, allowed(Permission.IMAGES_READ)]
Writer = Annotated[Caller, allowed(Permission.IMAGES_WRITE)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/vm-images")
async def list_vm_images(who: Reader, images: Images, after: str | None = None, limit: Limit = 100) -> VmImagePage:
    """The VM images that the caller may see, by name."""
    return await images.list_images(who, after, limit)


@router.post("/vm-images", status_code=201)
async def add_vm_image(body: NewImage, who: Writer, images: Images) -> VmImage:
    """Add a VM image with its first version."""
    return await images.add(who, body)


@router.get("/vm-images/content/{version_id}", response_class=FileResponse)
async def read_listed_content(version_id: str, who: Reader, images: Images) -> FileResponse:
    """The content of a version, by the id that image lists name."""
    path, name = await images.content_of(who, version_id)
    return FileResponse(path, media_type="application/octet-stream", filename=name)


@router.get("/vm-images/show/{name:path}")
async def get_vm_image(name: str, who: Reader, images: Images) -> VmImage:
    """One VM image: ``NAME``, or ``SCOPE/NAME`` to be exact."""
    return await images.get(who, name)


@router.get("/vm-images/download/{name:path}", response_class=FileResponse)
async def download_vm_image(
    name: str,
    who: Reader,
    images: Images,
    version: str | None = None,
    format: Format | None = None,  # noqa: A002
) -> FileResponse:
    """The content of a VM image, for a hypervisor of one's own; ranges are served."""
    path, shown = await images.content(who, name, version, format)
    return FileResponse(path, media_type="application/octet-stream", filename=shown)


@router.post("/vm-images/versions/{name:path}", status_code=201)
async def add_version(name: str, body: NewVersion, who: Writer, images: Images) -> VmImage:
    """Add a version; versions never change."""
    return await images.add_version(who, name, body)


@router.put("/vm-images/upload/{version}/{name:path}", response_model=VmImage)
async def upload_content(version: str, name: str, who: Writer, images: Images, request: Request) -> Any:
    """The content of a version that waits for it: qcow2 or raw."""
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdecimal() else None
    try:
        return await images.upload(who, name, version, request.stream(), size)
    except Fault as fault:  # the sender is told at once, not when it has sent the rest
        answer = problem(fault)
        answer.headers["Connection"] = "close"
        return answer


@router.post("/vm-images/withdraw/{version}/{name:path}")
async def withdraw_version(version: str, name: str, body: Withdrawal, who: Writer, images: Images) -> VmImage:
    """Take a version back: nothing new is started of it. What runs goes on."""
    return await images.withdraw(who, name, version, body.why)


@router.post("/vm-images/endorse/{name:path}")
async def endorse_vm_image(name: str, body: NewEndorsement, who: Writer, endorsing: Endorsing) -> VmImage:
    """Let the members of a VO start it."""
    return await endorsing.endorse(who, name, body)


@router.delete("/vm-images/endorse/{vo}/{name:path}")
async def revoke_endorsement(vo: str, name: str, who: Writer, endorsing: Endorsing) -> VmImage:
    """Start nothing new of it in the name of a VO."""
    return await endorsing.revoke(who, name, vo)


@router.get("/vos/{vo}/image-policy")
async def get_image_policy(vo: str, who: Reader, endorsing: Endorsing) -> ImagePolicy:
    """What a VO lets its members start besides what it endorses."""
    return await endorsing.policy(who, vo)


@router.put("/vos/{vo}/image-policy")
async def set_image_policy(vo: str, body: ImagePolicy, who: Writer, endorsing: Endorsing) -> ImagePolicy:
    """Change it."""
    return await endorsing.set_policy(who, vo, body)


@router.get("/vos/{vo}/image-list")
async def publish_image_list(vo: str, who: Reader, endorsing: Endorsing) -> dict[str, Any]:
    """The VM images that a VO endorses, as a HEPiX image list."""
    return await endorsing.publish(who, vo)


@router.get("/vos/{vo}/image-subscriptions")
async def list_subscriptions(vo: str, who: Reader, endorsing: Endorsing) -> SubscriptionPage:
    """The image lists of others that a VO follows."""
    return await endorsing.subscriptions(who, vo)


@router.post("/vos/{vo}/image-subscriptions", status_code=201)
async def subscribe(vo: str, body: NewSubscription, who: Writer, endorsing: Endorsing) -> Subscription:
    """Follow an image list: what it names is endorsed, what it drops is withdrawn."""
    return await endorsing.subscribe(who, vo, body)


@router.delete("/vos/{vo}/image-subscriptions/{subscription}", status_code=204)
async def unsubscribe(vo: str, subscription: str, who: Writer, endorsing: Endorsing) -> None:
    """Follow it no more."""
    await endorsing.unsubscribe(who, vo, subscription)


@router.get("/image-lists/authority.pem", dependencies=[public()], response_class=Response)
async def read_list_authority(lists: Lists) -> Response:
    """The certificate that the signatures of image lists are checked against."""
    return Response(await lists.authority(), media_type="application/x-pem-file")


@router.get("/image-lists/content/{version_id}", dependencies=[public()], response_class=FileResponse)
async def read_published_content(version_id: str, lists: Lists) -> FileResponse:
    """The content of a version that an image list for everybody names."""
    path, name = await lists.content(version_id)
    return FileResponse(path, media_type="application/octet-stream", filename=name)


@router.get("/image-lists/vo/{vo}", dependencies=[public()], response_class=Response)
async def read_published_list(vo: str, lists: Lists) -> Response:
    """What a VO endorses, as a signed HEPiX image list, where the VO publishes it."""
    return Response(await lists.signed(vo), media_type="text/plain")
