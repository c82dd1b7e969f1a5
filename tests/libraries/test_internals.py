"""Something that a library promises nobody is looked for, and missed by name."""

from __future__ import annotations

import pytest

from garcon_jupyter.errors import LibraryChanged
from garcon_jupyter.libraries import releases
from garcon_jupyter.libraries.internals import Internal, check

USE = "reads something"


@pytest.mark.parametrize(
    ("internal", "lack"),
    [
        (Internal("json.decoder", "JSONDecoder.raw_decode", USE, ("s", "idx")), ""),
        (Internal("json.decoder", "scanstring", USE), ""),
        (Internal("json.no_such", "x", USE), "has no module json.no_such"),
        (Internal("json.decoder", "Gone", USE), "has no json.decoder.Gone"),
        (
            Internal("json.decoder", "JSONDecoder.gone", USE),
            "has no json.decoder.JSONDecoder.gone",
        ),
        (
            Internal("json.decoder", "JSONDecoder.raw_decode", USE, ("s", "end", "at")),
            "has a json.decoder.JSONDecoder.raw_decode that takes no at and no end",
        ),
        (Internal("collections", "OrderedDict.fromkeys", USE, ("iterable",)), ""),
    ],
)
def test_what_is_missing_is_named(internal: Internal, lack: str) -> None:
    assert internal.lack() == lack


def test_the_error_names_the_release_and_those_that_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(releases, "installed", lambda library: "9.1.0")
    gone = Internal("json", "Gone", "cuts a model", history="since 5.24 it is elsewhere")
    with pytest.raises(LibraryChanged) as caught:
        check("transformers", [Internal("json", "loads", USE), gone])
    assert caught.value.problem == (
        "transformers 9.1.0 has no json.Gone, by which Garçon cuts a model (since 5.24 it is elsewhere)."
    )
    newest = releases.span("transformers").split()[-1]
    assert caught.value.remedy.startswith(f"It has changed since {newest}. ")
    assert f"pip install 'transformers{releases.specifier('transformers')}'" in caught.value.remedy


def test_of_an_older_release_it_is_not_said_that_it_has_changed_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(releases, "installed", lambda library: "1.0")
    with pytest.raises(LibraryChanged) as caught:
        check("torch", [Internal("json", "Gone", USE)])
    assert caught.value.remedy.startswith(f"{releases.span('torch')} have it")


def test_of_other_libraries_no_releases_are_known() -> None:
    with pytest.raises(LibraryChanged, match="ipykernel .* has no json.Gone") as caught:
        check("ipykernel", [Internal("json", "Gone", USE)])
    assert caught.value.remedy == "pip install a release of ipykernel of before."
