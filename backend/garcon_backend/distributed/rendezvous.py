"""Torch's rendezvous: within one process, or sealed with the secret of the hosts.

The launcher of a single host meets nobody, so its store is its own memory. Torch would have it in a file, to which
the launcher adds a record every second; where the disk was full for a moment it waits for the rest of one for ever,
and no longer sees to its ranks.

The launchers of several hosts agree on who takes part through a state that each of them pickles into torch's
store. The store listens on the network and asks for no key, so whoever reaches it could leave a pickle there
that runs code of theirs. Here each state carries a seal, HMAC-SHA256 keyed by the secret that the hosts share
(:mod:`garcon_backend.distributed.secret`), and nothing is unpickled before its seal was right. A stranger at the
store can still write what nobody understands, and so end a rendezvous; the hosts then say so.
"""

from __future__ import annotations

import hashlib
import hmac

from torch.distributed import HashStore
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStateError,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import (
    create_backend,
)
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import (
    RendezvousBackend,
    Token,
    create_handler,
)

BACKEND = "garcon"
"""What torch's launcher calls that of several hosts; its parameter ``seal`` is the key, as hexadecimal digits."""

ALONE = "garcon-alone"
"""What it calls that of one host."""

_SEAL = hashlib.sha256().digest_size


class Sealed(RendezvousBackend):
    """A backend whose states are sealed.

    Args:
        inner: keeps the states.
        key: of the seals.
    """

    def __init__(self, inner: RendezvousBackend, key: bytes) -> None:
        self._inner, self._key = inner, key

    @property
    def name(self) -> str:
        return BACKEND

    def get_state(self) -> tuple[bytes, Token] | None:
        """The state and its version.

        Raises:
            RendezvousStateError: it has no right seal.
        """
        found = self._inner.get_state()
        return found and (self._opened(found[0]), found[1])

    def set_state(
        self, state: bytes, token: Token | None = None
    ) -> tuple[bytes, Token, bool] | None:
        """Put a state in the place of that version; the state that holds now, and whether it is this one.

        Raises:
            RendezvousStateError: the one that holds has no right seal.
        """
        found = self._inner.set_state(self._seal(state) + state, token)
        return found and (self._opened(found[0]), *found[1:])

    def _seal(self, state: bytes) -> bytes:
        return hmac.digest(self._key, state, "sha256")

    def _opened(self, sealed: bytes) -> bytes:
        seal, state = sealed[:_SEAL], sealed[_SEAL:]
        if not hmac.compare_digest(seal, self._seal(state)):
            raise RendezvousStateError(
                "Somebody without the secret of the hosts wrote to their store."
            )
        return state


def _create(parameters: RendezvousParameters) -> RendezvousHandler:
    inner, store = create_backend(parameters)
    return create_handler(store, Sealed(inner, bytes.fromhex(parameters.get("seal"))), parameters)


class Alone(RendezvousHandler):
    """The launcher of a single host, which has met everybody as soon as it asks.

    Torch's own would look whether others came at once, and again after a second.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id, self._closed = run_id, False

    def get_backend(self) -> str:
        return ALONE

    def next_rendezvous(self) -> RendezvousInfo:
        """A store of this process, anew for each start of the ranks.

        Raises:
            RendezvousClosedError: the ranks are to start no more.
        """
        if self._closed:
            raise RendezvousClosedError
        store = HashStore()
        place = RendezvousStoreInfo.build(0, store, local_addr="localhost")
        return RendezvousInfo(store, rank=0, world_size=1, bootstrap_store_info=place)

    def is_closed(self) -> bool:
        return self._closed

    def set_closed(self) -> None:
        self._closed = True

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        self._closed = True
        return True


def _create_alone(parameters: RendezvousParameters) -> RendezvousHandler:
    return Alone(parameters.run_id)


rendezvous_handler_registry.register(BACKEND, _create)
rendezvous_handler_registry.register(ALONE, _create_alone)
