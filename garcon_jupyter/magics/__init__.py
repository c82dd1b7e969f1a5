"""The magics: ``%garcon``, ``%%garcon`` and ``%%probe``.

A magic is short for plain Python and never more: it changes the notebook's variable ``rmodel``, which
is the *current model*, and calls its methods. What each magic says about its options is written in
:mod:`~garcon_jupyter.magics.arguments`, from which their help and their completion are made.

Their lines are taken as they are written, so that ``layers.{4,8}.resid_post`` selects two layers; but
``{name}`` of a notebook variable is replaced by its value: with ``i = 3``, ``layers.{i}.mlp.out`` is
``layers.3.mlp.out``, and with ``chosen = [1, 3]``, ``layers.{chosen}.mlp.out`` is
``layers.{1,3}.mlp.out``. ``$`` means nothing.

Not here: anything that plain Python cannot do as well.

``garcon``      ``%garcon WORD …``, and the two cell magics
``probe``       ``%%probe``: a cell becomes a probe, is attached, and may run at once
``arguments``   words, options and their help
``parser``      what reads the words of a line
``experiments`` the experiments as words
``activations`` activations on disk, and features
``dictionaries`` dictionaries on the server
``dictionary_training``  a dictionary trained
``training``    what a record of a training says
``explanations``  what units are said to fire for
``cells``       the body of a cell as a function
``scopes``      which names a body reads and assigns
``completion``  tab completion
``current``     the current model: the notebook's variable ``rmodel``
"""

from __future__ import annotations

from typing import Any


def load(shell: Any) -> None:
    """Add the magics and their completion to a shell. Once is enough, twice is harmless."""
    from garcon_jupyter.client import preload
    from garcon_jupyter.magics.completion import matcher
    from garcon_jupyter.magics.garcon import GarconMagics

    if GarconMagics.__name__ in shell.magics_manager.registry:
        return
    preload.begin()
    magics = GarconMagics(shell)
    shell.register_magics(magics)
    shell.input_transformers_cleanup.append(with_a_body)
    shell.Completer.custom_matchers.append(matcher(magics.current))


def unload(shell: Any) -> None:
    """Take them away again. Connections, probes and recordings stay."""
    from garcon_jupyter.magics.completion import IDENTIFIER
    from garcon_jupyter.magics.garcon import GarconMagics

    if with_a_body in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(with_a_body)
    manager = shell.magics_manager
    manager.registry.pop(GarconMagics.__name__, None)
    for kind in ("line", "cell"):
        for name in ("garcon", "probe"):
            manager.magics[kind].pop(name, None)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [m for m in matchers if getattr(m, "matcher_identifier", "") != IDENTIFIER]


def with_a_body(lines: list[str]) -> list[str]:
    """The lines of a cell; where it is ``%%probe POINT --record …`` and nothing else, with an empty line below:
    IPython refuses a cell magic without any, and a recorder needs none."""
    alone = bool(lines) and not "".join(lines[1:]).strip()
    if alone and lines[0].startswith(("%%probe ", "%%garcon ")) and "--record" in lines[0]:
        return [lines[0].rstrip("\n") + "\n", "\n"]
    return lines
