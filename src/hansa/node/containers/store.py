"""The store: images, unpacked layers and containers in one directory, with read-only stores stacked below.

This is the interface; all paths are absolute.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ContextManager, List, Mapping, Optional, Sequence, Tuple, Union

from .model import ContainerRecord, Image


class Store:
    """One user's store. Many processes may use it at once.

    A store never holds half a thing: whatever it lists is whole, wherever a process was killed.
    """

    def __init__(self, root: Union[str, Path], read_only_roots: Sequence[Union[str, Path]] = ()) -> None:
        """Nothing is read or made before the first use. Image lookups go through ``root``, then the others in order."""
        self.root = Path(root)
        self.read_only_roots = tuple(Path(other) for other in read_only_roots)

    # Images.

    def images(self) -> List[Image]:
        """All images, of all stacked stores, newest name first; an image is listed once."""
        raise NotImplementedError

    def find_image(self, name_or_id: str) -> Image:
        """By name (any form), id or its beginning (at least 4 digits), with or without ``sha256:``.

        Raises ImageNotFound, Ambiguous. Cheap: one small file is read for a name.
        """
        raise NotImplementedError

    def layer_paths(self, of: Union[Image, ContainerRecord]) -> List[Path]:
        """The unpacked layers, lowest first, ready to be overlay's ``lowerdir`` (in reverse order, ``userxattr``).

        May be fewer than the image has layers: empty ones are left out, and where whiteouts cannot be represented
        a directory that holds the merged result stands for a layer and all below it.
        """
        raise NotImplementedError

    # Containers.

    def containers(self) -> List[ContainerRecord]:
        """All containers of this store, oldest first."""
        raise NotImplementedError

    def find_container(self, name_or_id: str) -> ContainerRecord:
        """By name, id or its beginning (at least 4 digits). Raises ContainerNotFound, Ambiguous."""
        raise NotImplementedError

    def create_container(
        self,
        image: Image,
        name: Optional[str] = None,
        options: Optional[Mapping[str, Any]] = None,
        image_name: str = "",
    ) -> ContainerRecord:
        """A new container with an empty upper directory. Costs a few small files. Raises NameTaken, BadName."""
        raise NotImplementedError

    def container_dirs(self, record: ContainerRecord) -> Tuple[Path, Path, Path]:
        """``(upper, work, merged)``: overlay's two directories and a mount point. They exist."""
        raise NotImplementedError

    def set_options(self, record: ContainerRecord, options: Mapping[str, Any]) -> ContainerRecord:
        """Replace the container's options."""
        raise NotImplementedError

    def rename(self, record: ContainerRecord, old: Optional[str], new: Optional[str]) -> ContainerRecord:
        """Give, change or take a name: ``(None, "a")``, ``("a", "b")``, ``("a", None)``. Raises NameTaken, BadName."""
        raise NotImplementedError

    def protect(self, thing: Union[Image, ContainerRecord], is_protected: bool = True) -> None:
        """A protected image or container cannot be removed."""
        raise NotImplementedError

    def clone_container(self, record: ContainerRecord, name: Optional[str] = None) -> ContainerRecord:
        """A copy with its own files. The original should not be running."""
        raise NotImplementedError

    def remove_container(self, record: ContainerRecord, is_forced: bool = False) -> None:
        """Remove it and its files. Raises Protected; InUse while a run holds it, unless forced."""
        raise NotImplementedError

    def running(self, record: ContainerRecord) -> ContextManager[None]:
        """Held (shared, by flock) as long as a program runs in the container, by whoever waits for the program."""
        raise NotImplementedError

    def is_running(self, record: ContainerRecord) -> bool:
        """True while somebody holds :meth:`running`."""
        raise NotImplementedError

    # What containers need where overlays are impossible.

    def flatten(self, of: Union[Image, ContainerRecord], target: Union[str, Path]) -> None:
        """Write the merged tree of all layers (not the upper directory) into ``target``, a new directory.

        Files are copied (reflinks where the file system can), whiteouts are applied.
        """
        raise NotImplementedError
