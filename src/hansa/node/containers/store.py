"""The store: images, unpacked layers and containers in one directory, with read-only stores stacked below.

Many processes may use it at once. It never holds half a thing: whatever it lists is whole, wherever a process was
killed. What it looks like on disk is in ``layout.py``; all paths given out are absolute.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import (
    TYPE_CHECKING,
    Any,
    ContextManager,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from .cells import Cells
from .errors import Ambiguous, BadReference, ContainerNotFound, ImageNotFound, InUse, Protected
from .layout import Layout, disk_errors, read_json
from .locks import locked
from .model import ContainerRecord, Image, ImageConfig, Layer, Reference
from .stack import Stack

if TYPE_CHECKING:
    from pathlib import Path  # imported where it is used: every start of a container imports this module

SHORTEST_ID = 4
THROWAWAY = "throwaway"
"""The option of a container that goes with its only run: what is left of it was left by a kill."""
_HEX = frozenset("0123456789abcdef")


class Store:
    """One user's store. Nothing is read or made before the first use."""

    def __init__(self, root: Union[str, Path], read_only_roots: Sequence[Union[str, Path]] = ()) -> None:
        """Lookups of images go through ``root``, then the others in order."""
        self.layout = Layout(str(root))
        self.below = tuple(Layout(str(other), is_writable=False) for other in read_only_roots)
        self._cells = Cells(self.layout)

    @property
    def root(self) -> Path:
        """The store's directory."""
        from pathlib import Path

        return Path(self.layout.root)

    # Images.

    def images(self) -> List[Image]:
        """All images, of all stacked stores, newest first; an image is listed once."""
        found: Dict[str, Image] = {}
        for layout in (self.layout, *self.below):
            names = self._names(layout)
            for file_name in _listing(layout.path("images")):
                image_id = "sha256:" + file_name.partition(".")[0]
                image = self._load(layout, image_id, names)
                if image is not None and image_id not in found:
                    found[image_id] = image
        return sorted(found.values(), key=lambda image: (image.created, image.id), reverse=True)

    def find_image(self, name_or_id: str) -> Image:
        """By name (any form), id or its beginning (at least 4 digits), with or without ``sha256:``.

        Raises ImageNotFound, Ambiguous. Cheap: two small files are read.
        """
        for layout in (self.layout, *self.below):
            names = self._names(layout)
            image_id = _by_name(names, name_or_id)
            if image_id is not None:
                image = self._load(layout, image_id, names)
                if image is not None:
                    return image
        image = self._by_id(name_or_id)
        if image is None:
            raise ImageNotFound(f"there is no container image {name_or_id!r} in the store", "pull it first")
        return image

    def _by_id(self, text: str) -> Optional[Image]:
        digits = text[len("sha256:") :] if text.startswith("sha256:") else text
        if len(digits) < SHORTEST_ID or not set(digits) <= _HEX:
            return None
        found: Dict[str, Layout] = {}
        for layout in (self.layout, *self.below):
            for name in _listing(layout.path("images")):
                if name.startswith(digits):
                    found.setdefault("sha256:" + name.partition(".")[0], layout)
        if len(found) > 1:
            raise Ambiguous(f"{text!r} is the beginning of {len(found)} image ids", "give more digits, or a name")
        for image_id, layout in found.items():
            return self._load(layout, image_id, self._names(layout))
        return None

    def _names(self, layout: Layout) -> Dict[str, Dict[str, Any]]:
        _ = layout.settings
        try:
            found: Dict[str, Dict[str, Any]] = read_json(layout.path("names.json"))
        except FileNotFoundError:
            return {}
        return found

    def _load(self, layout: Layout, image_id: str, names: Mapping[str, Mapping[str, Any]]) -> Optional[Image]:
        try:
            data = read_json(layout.path("images", image_id.partition(":")[2] + ".json"))
        except FileNotFoundError:
            return None
        return Image(
            id=image_id,
            manifest_digest=data["manifest"],
            names=tuple(sorted(name for name, one in names.items() if one["id"] == image_id)),
            layers=tuple(Layer.from_json(layer) for layer in data["layers"]),
            config=ImageConfig.from_json(data["config"]),
            created=data["config"].get("created", ""),
            is_protected=bool(data.get("protected")),
            is_read_only=not layout.is_writable,
        )

    def layer_paths(self, of: Union[Image, ContainerRecord]) -> List[Path]:
        """The unpacked layers, lowest first, ready to be overlay's ``lowerdir`` (in reverse order, ``userxattr``).

        May be fewer than the image has layers: empty ones are left out, and where whiteouts cannot be represented
        a directory that holds the merged result stands for a layer and all below it. Raises BadImage.
        """
        from pathlib import Path

        return [Path(path) for path in self.layer_directories(of)]

    def layer_directories(self, of: Union[Image, ContainerRecord]) -> List[str]:
        """:meth:`layer_paths` as plain strings."""
        return Stack(self.layout, self.below).paths(of.layers)

    def flatten(self, of: Union[Image, ContainerRecord], target: Union[str, Path]) -> None:
        """Write the merged tree of all layers (not the upper directory) into ``target``, a new or empty directory.

        Files are copied (reflinks where the file system can), whiteouts are applied.
        """
        from .layers import Layers
        from .merge import merge

        with disk_errors(str(target)):
            os.makedirs(target, exist_ok=True)
            merge(Layers(self.layout, self.below).parts(of.layers), str(target), is_linked=False)

    # Changes to images.

    @contextmanager
    def using(self) -> Iterator[None]:
        """Around everything that adds: garbage collection waits. The store is made if it is not there."""
        self.layout.prepare()
        with disk_errors(self.layout.root), locked(self.layout.path("lock"), is_shared=True):
            yield

    def put_image(
        self,
        manifest_digest: str,
        config_digest: str,
        layers: Sequence[Layer],
        config: ImageConfig,
        names: Sequence[str] = (),
        index_digest: str = "",
    ) -> Image:
        """Make an image known whose layers and blobs are there. Call inside :meth:`using`."""
        path = self._image_file(config_digest)
        data: Dict[str, Any] = {
            "format": 1,
            "manifest": manifest_digest,
            "layers": [layer.to_json() for layer in layers],
            "config": config.to_json(),
        }
        with locked(self.layout.path("names.lock")):
            try:
                data["protected"] = bool(read_json(self.layout.path(path)).get("protected"))
            except FileNotFoundError:
                pass
            self.layout.write_json(path, data)
            self._change_names({name: _entry(config_digest, manifest_digest, index_digest) for name in names})
        image = self._load(self.layout, config_digest, self._names(self.layout))
        assert image is not None
        return image

    def _image_file(self, image_id: str) -> str:
        return os.path.join("images", image_id.partition(":")[2] + ".json")

    def _change_names(self, changes: Mapping[str, Optional[Dict[str, Any]]]) -> None:
        """With ``names.lock`` held. None takes a name away."""
        names = self._names(self.layout)
        for name, entry in changes.items():
            if entry is None:
                names.pop(name, None)
            else:
                names[name] = entry
        if changes:
            self.layout.write_json("names.json", names)

    def tag(self, image: Image, name: str) -> Image:
        """Give one more name to an image, also to one of a store below. An image that had it loses it."""
        reference = Reference.parse(name)
        if reference.digest:
            raise BadReference(f"{name!r} has a digest; a new name has a tag at most")
        with self.using():
            return self.put_image(
                image.manifest_digest, image.id, image.layers, image.config, (*_own(image), str(reference))
            )

    def remove_image(self, name_or_id: str, is_forced: bool = False) -> List[str]:
        """Take a name away; with the last one, or by id, the image too. Returns what went: names, then ids.

        Its layers and blobs go with the next :func:`collect.collect`. Raises Protected, InUse (containers are made
        of it; not when forced), ImageNotFound.
        """
        image = self.find_image(name_or_id)
        if image.is_read_only:
            raise Protected(f"the image {name_or_id} is in a read-only store", "its keeper may remove it")
        name = _name_in(image, name_or_id)
        going = [name] if name is not None and len(image.names) > 1 else list(image.names)
        is_last = len(going) == len(image.names)
        if is_last and image.is_protected:
            raise Protected(f"the image {name_or_id} is protected", "unprotect it first")
        users = [one for one in self.containers() if one.image_id == image.id] if is_last else []
        if users and not is_forced:
            shown = ", ".join((one.names or (one.short_id,))[0] for one in users[:3])
            raise InUse(f"{len(users)} containers are made of the image {name_or_id}: {shown}", "remove them, or force")
        with self.using(), locked(self.layout.path("names.lock")):
            self._change_names(dict.fromkeys(going))
            if is_last:
                os.unlink(self.layout.path(self._image_file(image.id)))
        return [*going, *([image.id] if is_last else [])]

    def protect(self, thing: Union[Image, ContainerRecord], is_protected: bool = True) -> None:
        """A protected image or container cannot be removed."""
        with self.using():
            if isinstance(thing, ContainerRecord):
                self._cells.change(thing, {"protected": is_protected})
                return
            if thing.is_read_only:
                raise Protected("the image is in a read-only store")
            path = self._image_file(thing.id)
            with locked(self.layout.path("names.lock")):
                self.layout.write_json(path, {**read_json(self.layout.path(path)), "protected": is_protected})

    # Containers.

    def containers(self) -> List[ContainerRecord]:
        """All containers of this store, oldest first."""
        with disk_errors(self.layout.root):
            return self._cells.all()

    def find_container(self, name_or_id: str) -> ContainerRecord:
        """By name, id or its beginning (at least 4 digits). Raises ContainerNotFound, Ambiguous."""
        with disk_errors(self.layout.root):
            return self._cells.find(name_or_id)

    def create_container(
        self,
        image: Image,
        name: Optional[str] = None,
        options: Optional[Mapping[str, Any]] = None,
        image_name: str = "",
    ) -> ContainerRecord:
        """A new container with an empty upper directory. Costs a few small files. Raises NameTaken, BadName."""
        record = ContainerRecord(
            id=os.urandom(16).hex(),
            names=(),
            image_id=image.id,
            image_name=image_name or (image.names[0] if image.names else ""),
            created=time.time(),
            layers=image.layers,
            config=image.config,
            options=dict(options or {}),
        )
        with self.using():
            stack = Stack(self.layout, self.below)
            missing = [layer.diff_id for layer in image.layers if not stack.is_there(layer.diff_id)]
            if missing:
                raise ImageNotFound(f"the image {image.short_id} is not there any more: {missing[0]}", "pull it again")
            return self._cells.create(record, name)

    def container_dirs(self, record: ContainerRecord) -> Tuple[Path, Path, Path]:
        """``(upper, work, merged)``: overlay's two directories and a mount point. They exist."""
        from pathlib import Path

        upper, work, merged = self.container_places(record)
        return Path(upper), Path(work), Path(merged)

    def container_places(self, record: ContainerRecord) -> Tuple[str, str, str]:
        """:meth:`container_dirs` as plain strings."""
        upper, work, merged = (self.layout.path("containers", record.id, name) for name in ("upper", "work", "merged"))
        return upper, work, merged

    def set_options(self, record: ContainerRecord, options: Mapping[str, Any]) -> ContainerRecord:
        """Replace the container's options."""
        with self.using():
            return self._cells.change(record, {"options": dict(options)})

    def rename(self, record: ContainerRecord, old: Optional[str], new: Optional[str]) -> ContainerRecord:
        """Give, change or take a name: ``(None, "a")``, ``("a", "b")``, ``("a", None)``. Raises NameTaken, BadName."""
        with self.using():
            return self._cells.rename(record, old, new)

    def clone_container(self, record: ContainerRecord, name: Optional[str] = None) -> ContainerRecord:
        """A copy with its own files. The original should not be running."""
        with self.using():
            return self._cells.clone(record, name)

    def remove_container(self, record: ContainerRecord, is_forced: bool = False) -> None:
        """Remove it and its files. Raises Protected; InUse while a run holds it, unless forced."""
        with self.using():
            self._cells.remove(record, is_forced)

    def forget_container(self, record: ContainerRecord) -> bool:
        """For a collection, which holds the lock: remove it; False if a program runs in it, or it is protected."""
        try:
            self._cells.remove(record, False)
        except (InUse, Protected, ContainerNotFound):
            return False
        return True

    def running(self, record: ContainerRecord) -> ContextManager[None]:
        """Held (shared, by flock) as long as a program runs in the container, by whoever waits for the program."""
        return self._cells.running(record)

    def is_running(self, record: ContainerRecord) -> bool:
        """True while somebody holds :meth:`running`."""
        return self._cells.is_running(record)


def _listing(path: str) -> List[str]:
    try:
        return [name for name in os.listdir(path) if not name.startswith(".")]
    except FileNotFoundError:
        return []


def _entry(image_id: str, manifest: str, index: str) -> Dict[str, Any]:
    entry: Dict[str, Any] = {"id": image_id, "manifest": manifest, "when": time.time()}
    return {**entry, "index": index} if index else entry


def _own(image: Image) -> Tuple[str, ...]:
    return () if image.is_read_only else image.names


def _by_name(names: Mapping[str, Mapping[str, Any]], text: str) -> Optional[str]:
    """The id of the image with that name, also where it was pulled by tag and is asked for by digest."""
    reference = Reference.guess(text)
    entry = names.get(str(reference))
    if entry is not None:
        return str(entry["id"])
    if reference.digest:
        start = f"{reference.registry}/{reference.repository}"
        for name, one in names.items():
            is_same = name.startswith((start + ":", start + "@"))
            if is_same and reference.digest in (one["manifest"], one.get("index")):
                return str(one["id"])
    return None


def _name_in(image: Image, text: str) -> Optional[str]:
    """The full name by which the image was asked for, or None for an id."""
    try:
        full = str(Reference.parse(text))
    except BadReference:
        return None
    return full if full in image.names else None
