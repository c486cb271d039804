"""What all drivers of machines by Apache Libcloud share: those of one key are found, the one that counts is acted on.

A cloud says three things: which machines carry a key, which key a machine carries, and how a machine is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from hansa.engines.egress import EgressPolicy
from hansa.engines.libcloud import Account, call
from hansa.kernel.errors import Permanent, Temporary
from hansa.machines.drivers.base import Key, Life, Observed, Progress, Refused, Why, adopt

T = TypeVar("T")
SLOW_S = 180.0
"""Seconds that creation and deletion may take."""


class LibcloudBase(ABC):
    """The life of machines that are there already. ``WHY``: what words of a cloud's no mean, in lower case."""

    WHY: ClassVar[dict[str, Why]] = {}

    def __init__(self, account: Account, egress: EgressPolicy | None = None) -> None:
        self._account = account
        self._egress = egress

    @abstractmethod
    def _listed(self, api: Any, key: Key | None) -> Iterable[Any]:
        """Nodes of this key, or all that Hansa made. Those that are gone, and are listed still, are none."""

    @abstractmethod
    def _key_of(self, node: Any) -> Key: ...

    @abstractmethod
    def _observed(self, node: Any) -> Observed: ...

    async def observe(self, key: Key) -> Observed | None:
        return await self._ask(lambda api: self._found(api, key)[0])

    async def trim(self, key: Key) -> Progress:
        def work(api: Any) -> Progress:
            chosen, nodes = self._found(api, key)
            for node_id in chosen.surplus if chosen else ():
                api.destroy_node(nodes[node_id])
            return Progress.DONE

        return await self._ask(work)

    async def delete(self, key: Key) -> Progress:
        return await self._ask(lambda api: self._destroy(api, key), SLOW_S)

    async def list_keys(self, prefix: str = "") -> Sequence[Key]:
        """Of those that carry their key; not all clouds give it back."""

        def work(api: Any) -> list[Key]:
            found = {self._key_of(one) for one in self._listed(api, None)}
            return sorted(key for key in found if key and key.startswith(prefix))

        return await self._ask(work)

    async def close(self) -> None:  # noqa: B027 - there is nothing that a cloud would add
        """There is a connection for each call only."""

    async def stop(self, key: Key) -> Progress:
        return await self._power(key, Life.STOPPED, lambda api, node: api.stop_node(node))

    async def start(self, key: Key) -> Progress:
        return await self._power(key, Life.RUNNING, lambda api, node: api.start_node(node))

    async def reboot(self, key: Key, *, hard: bool = False) -> None:  # noqa: ARG002 - Libcloud knows one way
        await self._ask(lambda api: api.reboot_node(self._node(api, key)))

    async def _power(self, key: Key, life: Life, act: Callable[[Any, Any], Any]) -> Progress:
        def work(api: Any) -> Progress:
            node = self._node(api, key)
            now = self._observed(node).life
            if now is life:
                return Progress.DONE
            if now in (Life.RUNNING, Life.STOPPED):
                act(api, node)
            return Progress.PENDING

        return await self._ask(work)

    def _destroy(self, api: Any, key: Key) -> Progress:
        for node in self._listed(api, key):
            if self._observed(node).life is not Life.DELETING:
                api.destroy_node(node)
        return Progress.PENDING if list(self._listed(api, key)) else Progress.DONE

    def _found(self, api: Any, key: Key) -> tuple[Observed | None, dict[str, Any]]:
        """The one that counts, and all nodes of the key by their id."""
        nodes = {str(one.id): one for one in self._listed(api, key)}
        return adopt([self._observed(one) for one in nodes.values()]), nodes

    def _node(self, api: Any, key: Key) -> Any:
        """That of the one that counts. Raises Refused UNABLE."""
        chosen, nodes = self._found(api, key)
        if chosen is None:
            raise Refused(Why.UNABLE, "There is no such machine.")
        return nodes[chosen.provider_id]

    def _made(self, api: Any, key: Key) -> Observed:
        """What was just ordered. Raises Temporary while the cloud does not list it."""
        found, _ = self._found(api, key)
        if found is None:
            raise Temporary("It does not list the machine yet.", 1.0)
        return found

    async def _ask(self, work: Callable[[Any], T], deadline_s: float = 60.0) -> T:
        """One call, its refusals put into words that everybody shares."""
        try:
            return await call(self._account, work, self._egress, deadline_s)
        except Permanent as error:
            said = str(error).lower()
            why = next((why for word, why in self.WHY.items() if word in said), None)
            if why is None or isinstance(error, Refused):
                raise
            raise Refused(why, str(error)) from error
