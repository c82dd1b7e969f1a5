"""The same asked of every member of a fleet, and the answers by label."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from garcon_jupyter.client.probes import Probe
from garcon_jupyter.client.run import Run, as_data
from garcon_jupyter.client.tokens import Tokens, as_tokens
from garcon_jupyter.errors import BadRequest, ModelsDiffer, UnknownName
from garcon_jupyter.fleets.in_turn import SharedServer
from garcon_jupyter.fleets.labels import name_of
from garcon_jupyter.fleets.side_by_side import side_by_side
from garcon_jupyter.model import RemoteModel

if TYPE_CHECKING:
    from garcon_jupyter.atlas import Atlas

T = TypeVar("T")

ON_ERROR = ("keep", "raise")
"""What becomes of a member's error: it stands in its place, or it is raised when all others have ended."""

_OF_TOKENS = (".npy", ".safetensors")
"""Files that hold tokens, so that no tokenizer reads them."""


class AskingAll:
    """The members of a fleet, and what is asked of all of them.

    Attributes:
        name: of the fleet; `garcon list` and `garcon stop` know it.
        labels: of the members, in order.
        errors: of the members that did not come up, by label.
    """

    def __init__(
        self,
        name: str,
        members: Mapping[str, RemoteModel | BaseException] | SharedServer,
        one_tokenizer: bool,
    ) -> None:
        self.name, self.labels = name, tuple(members)
        self.errors: dict[str, BaseException] = {}
        self._models: Mapping[str, RemoteModel]
        if isinstance(members, SharedServer):
            self._models = members
        else:
            models = members.items()
            self.errors = {label: one for label, one in models if isinstance(one, BaseException)}
            self._models = {label: one for label, one in models if isinstance(one, RemoteModel)}
        self._one_tokenizer = one_tokenizer

    # -- members ---------------------------------------------------------------------------------

    def __getitem__(self, label: str) -> RemoteModel:
        if label in self.errors:
            raise self.errors[label]
        if label not in self._models:
            raise UnknownName.among(
                f"member of {self.name}", label, self.labels, f"It has {', '.join(self.labels)}."
            )
        return self._models[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.labels)

    # -- the same to all -------------------------------------------------------------------------

    def map(
        self, function: Callable[[RemoteModel], T], on_error: str = "keep"
    ) -> dict[str, T | BaseException]:
        """Call a function with the model of each member, all at once on threads of this process; in turn, one after the other.

        Args:
            function: ``function(rmodel) -> value``. It runs here, and asks its own server; what it changes beside
                that, it changes on several threads at once.
            on_error: "keep" puts the exception of a member that failed into its place; "raise" raises the first
                when all members have ended.

        Returns:
            What it returned, by label, in the order of the fleet.

        Raises:
            Interrupted: you interrupted it; the requests of all members were stopped, and each can be used.
        """
        check_on_error(on_error)
        return self._each(lambda label, model: function(model), on_error)

    def encode(self, text: Any, **options: Any) -> Tokens:
        """Text to tokens, once for all, by the tokenizer of the first member that runs.

        Args:
            text, options: as for :meth:`RemoteModel.encode`.

        Raises:
            ModelsDiffer: the members' tokenizers differ.
        """
        self._check_tokenizers()
        return self._first().encode(text, **options)

    def forward(
        self,
        tokens: Any,
        probes: Iterable[Probe] | None = None,
        *,
        seed: int | None = None,
        on_error: str = "keep",
        **options: Any,
    ) -> dict[str, Any]:
        """Run the same tokens through every member.

        Args:
            tokens: as for :meth:`RemoteModel.forward`. A text is encoded once, and travels as tokens.
            probes: for all; None for those that are attached to each member.
            seed: of the randomness inside probes; None draws one for all.
            on_error: as for :meth:`map`. Where all members fail, the first one's error is raised.
            options: ``logits``, ``batch_tokens``, ``adapter``, as for :meth:`RemoteModel.forward`.

        Returns:
            The logits as asked for, by label.

        Raises:
            BadTokens: these are no tokens; nothing has run.
            ModelsDiffer: a text was given, and tokenizers differ.
            Interrupted: as of :meth:`map`.
        """
        check_on_error(on_error)
        read = self.encode(tokens) if is_text(tokens) else as_tokens(tokens)
        given = None if probes is None else list(probes)
        seed = secrets.randbits(31) if seed is None else seed
        found = self._each(
            lambda label, model: model.forward(read, given, seed=seed, **options), on_error
        )
        return some(found)

    def run(
        self,
        data: Any,
        probes: Iterable[Probe] = (),
        *,
        on_error: str = "keep",
        **options: Any,
    ) -> dict[str, Run | BaseException]:
        """Stream the same data past probes on every member: the same batches, the same seed.

        Args:
            data, probes: as for :meth:`RemoteModel.run`.
            on_error: as for :meth:`map`. Where all members fail, the first one's error is raised.
            options: as for :meth:`RemoteModel.run`. Each member's checkpoints lie in a directory of its own, ``NAME.LABEL``.

        Returns:
            The runs, by label.

        Raises:
            BadData: this is no data; nothing has run.
            ModelsDiffer: the data is text, and tokenizers differ.
            Interrupted: every member's run was cancelled; what they recorded is there.
        """
        check_on_error(on_error)
        shared = self._shared_data(data, options)
        given = list(probes)

        def ran(label: str, model: RemoteModel) -> Run:
            mine = _own(self._directory(label), options)
            return model.run(shared, given, **{"show": False, **mine})

        return some(self._each(ran, on_error))

    def atlas(
        self,
        points: str | list[str],
        data: Any,
        path: str | Path,
        *,
        on_error: str = "keep",
        **options: Any,
    ) -> dict[str, Atlas | BaseException]:
        """An atlas of each member, from the same batches, with the same places sampled.

        Args:
            points, data: as for :meth:`RemoteModel.atlas`.
            path: a directory, in which each atlas has one of its own, named after its label.
            on_error: as for :meth:`map`. Where all members fail, the first one's error is raised.
            options: as for :meth:`RemoteModel.atlas`.

        Returns:
            The atlases, by label.

        Raises:
            BadData: this is no data; nothing has run.
            ModelsDiffer: the data is text, and tokenizers differ.
            Interrupted: as of :meth:`run`.
        """
        check_on_error(on_error)
        shared = self._shared_data(data, options)

        def made(label: str, model: RemoteModel) -> Atlas:
            where = Path(path) / self._directory(label).removeprefix(f"{self.name}.")
            mine = _own(self._directory(label), options)
            return model.atlas(points, shared, where, **{"show": False, **mine})

        return some(self._each(made, on_error))

    def _shared_data(self, data: Any, options: dict[str, Any]) -> Any:
        """Data that all read: what can be read but once is read here.

        Raises:
            BadData: it is none.
            ModelsDiffer: it is text, and tokenizers differ.
        """
        if isinstance(data, (str, Path)):
            if Path(data).suffix not in _OF_TOKENS:
                self._check_tokenizers()
            return data
        how = {word: options.pop(word) for word in ("field", "documents") if word in options}
        shared = as_data(data, **how)
        if shared.texts:
            self._check_tokenizers()
        return shared

    def _directory(self, label: str) -> str:
        """What a member's own directories are called."""
        return f"{self.name}.{name_of(label)}"

    # -- within ----------------------------------------------------------------------------------

    def _each(
        self, ask: Callable[[str, RemoteModel], T], on_error: str
    ) -> dict[str, T | BaseException]:
        """The outcome of asking each member that runs, and in their places the errors of those that do not."""
        labels, at_once = [*self._models], None
        if isinstance(self._models, SharedServer):
            labels, at_once = self._models.in_order(labels), 1

        def asked(label: str) -> T:
            return ask(label, self._models[label])

        done = side_by_side({label: partial(asked, label) for label in labels}, at_once)
        found = {label: done.get(label, self.errors.get(label)) for label in self.labels}
        if on_error == "raise":
            raise_first(found)
        return found  # type: ignore[return-value]

    def _first(self) -> RemoteModel:
        return self._models[next(iter(self._models))]

    def _check_tokenizers(self) -> None:
        if not self._one_tokenizer:
            raise ModelsDiffer(
                f"The tokenizers of {self.name} differ, so that a text would not be the same tokens for all.",
                "Give token ids; fleet[label].encode(text) gives those of a member.",
            )


def raise_first(found: Mapping[str, Any]) -> None:
    """Raise the first error among the outcomes of members, with its label."""
    for label, one in found.items():
        if isinstance(one, BaseException):
            one.add_note(f"This is of member {label!r}.")
            raise one


def check_on_error(on_error: str) -> None:
    """Refuse what is no way to treat errors.

    Raises:
        BadRequest: it is none.
    """
    if on_error not in ON_ERROR:
        raise BadRequest(f"There is no on_error={on_error!r}.", f"Use {' or '.join(ON_ERROR)}.")


def some(found: dict[str, Any]) -> dict[str, Any]:
    """The outcomes, of which one at least is no error.

    Where all have failed nothing is lost by raising, and what one mistake has caused is told once.
    """
    if all(isinstance(one, BaseException) for one in found.values()):
        raise_first(found)
    return found


def _own(directory: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run, with checkpoints in a directory of the member's own."""
    places = {w: options[w] for w in ("checkpoint", "resume") if options.get(w) is not None}
    return {**options, **{word: Path(place) / directory for word, place in places.items()}}


def is_text(tokens: Any) -> bool:
    """Whether tokens are still to be made of this: a text, or several."""
    several = isinstance(tokens, (list, tuple)) and tokens
    return isinstance(tokens, str) or bool(several and isinstance(tokens[0], str))
