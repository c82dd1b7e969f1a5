"""Which files a word means, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from garcon_jupyter.dictionaries.fetching import locate
from garcon_jupyter.errors import FetchFailed, NotADictionary
from tests.dictionaries.fixtures import root


def test_a_path_is_itself() -> None:
    assert locate(root() / "saelens-topk") == (root() / "saelens-topk").resolve()


def test_what_may_be_a_hub_id_is_asked_for_only_where_that_is_allowed() -> None:
    with pytest.raises(FetchFailed, match="HF_HUB_OFFLINE"):
        locate("nobody/nothing/layer_3")


@pytest.mark.parametrize("word", ["", "./not/there", "/not/there", "one two"])
def test_what_is_neither_is_refused(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if word == "":
        assert locate(word) == tmp_path  # a directory, which reading finds empty
        return
    with pytest.raises(NotADictionary, match="There is no"):
        locate(word)


def test_a_folder_of_a_snapshot_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0" * 40
    repository = tmp_path / "models--some--saes"
    (repository / "snapshots" / commit / "layer_3").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert locate("some/saes/layer_3").name == "layer_3"
    with pytest.raises(FetchFailed, match="layer_4"):
        locate("some/saes/layer_4")
