"""The right column of docs/coming-from.md, executed; its values against plain transformers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from garcon_jupyter.model_files import embedded
from tests.conftest import quiet
from tests.oracle import Plain, close

pytestmark = pytest.mark.processes

PAGE = Path(__file__).parents[1] / "docs" / "coming-from.md"
COLUMNS = ("TransformerLens", "nnsight", "Garçon")
FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
HEAD = 64  # size of one of SmolLM2's heads


def snippets() -> list[dict[str, str]]:
    """The snippets of each numbered section by column."""
    sections = re.split(r"^## (?=\d+\. )", PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]
    found = []
    for number, section in enumerate(sections):
        assert section.startswith(f"{number}. ")
        blocks = re.findall(r"^```python\n(.*?)^```$", section, flags=re.M | re.S)
        found.append(dict(zip(COLUMNS, blocks, strict=True)))
    return found


def run(source: str, names: dict[str, Any]) -> None:
    """Execute a snippet as a script would."""
    exec(compile(source, "<docs/coming-from.md>", "exec"), names)


@pytest.fixture(scope="module")
def smollm2_plain() -> Plain:
    return Plain(embedded.fetch("smollm2", progress=quiet))


@pytest.fixture(scope="module")
def begun() -> Iterator[dict[str, Any]]:
    """The names that section 0 defines."""
    names: dict[str, Any] = {"__name__": "__main__"}
    run(snippets()[0]["Garçon"], names)
    yield names
    names["rmodel"].shutdown()


@pytest.fixture
def after(begun: dict[str, Any]) -> Callable[[int], dict[str, Any]]:
    """Runs one section, on its own after section 0; the names it leaves behind."""

    def section(number: int) -> dict[str, Any]:
        begun["rmodel"].clear_recordings()
        names = dict(begun)
        run(snippets()[number]["Garçon"], names)
        return names

    return section


After = Callable[[int], dict[str, Any]]


# -- the other side: plain hooks -----------------------------------------------------------------


def ids(plain: Plain, text: str) -> Tensor:
    return plain.tokenizer(text, return_tensors="pt")["input_ids"]


@contextmanager
def edited_input(plain: Plain, path: str, edit: Callable[[Tensor], None]) -> Iterator[None]:
    """Change the input of a module in place while the block runs."""

    def hook(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        value = args[0].clone()
        edit(value)
        return (value, *args[1:])

    handle = plain.module(path).register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def is_edited(logits: Tensor, expected: Tensor, clean: Tensor) -> bool:
    """Whether they are the edited model's, and one that was left alone would not pass."""
    return close(logits, expected) and not close(logits, clean)


# -- the page ------------------------------------------------------------------------------------


def test_there_are_ten_snippets_and_a_beginning_in_three_columns() -> None:
    found = snippets()
    assert len(found) == 11
    assert all(block.strip() for section in found for block in section.values())


def test_beginning(begun: dict[str, Any], smollm2_plain: Plain) -> None:
    assert begun["tokens"].tolist() == ids(smollm2_plain, FRANCE).tolist()
    assert begun["other"].tolist() == ids(smollm2_plain, ITALY).tolist()
    assert smollm2_plain.tokenizer.decode(begun["paris"]) == " Paris"


def test_read_an_activation(after: After, smollm2_plain: Plain) -> None:
    neurons = after(1)["neurons"]
    assert neurons.shape == (1, 5, 1536)
    assert close(neurons, smollm2_plain.neurons(4, ids(smollm2_plain, FRANCE)))


@torch.no_grad()
def test_logit_lens(after: After, smollm2_plain: Plain) -> None:
    model, tokens = smollm2_plain.model, ids(smollm2_plain, FRANCE)
    # transformers' own last hidden state has been through the final norm already.
    streams = model(tokens, output_hidden_states=True).hidden_states[1:-1]
    last = smollm2_plain.output("model.layers.29", tokens)
    ends = torch.cat([stream[:, -1] for stream in (*streams, last)])
    expected = model.lm_head(model.model.norm(ends)).argmax(-1).tolist()
    assert len(expected) == 30
    best = after(2)["best"]
    assert best == expected
    assert best[-1] == smollm2_plain.tokenizer(" Paris")["input_ids"][0] != best[0]


def test_ablate_a_neuron(after: After, smollm2_plain: Plain) -> None:
    tokens = ids(smollm2_plain, FRANCE)
    clean = smollm2_plain.logits(tokens)
    with edited_input(
        smollm2_plain, "model.layers.4.mlp.down_proj", lambda x: x[:, :, 123].zero_()
    ):
        expected = smollm2_plain.logits(tokens)
    assert is_edited(after(3)["logits"], expected, clean)


def test_zero_a_head(after: After, smollm2_plain: Plain) -> None:
    tokens = ids(smollm2_plain, FRANCE)
    clean = smollm2_plain.logits(tokens)
    head = slice(3 * HEAD, 4 * HEAD)
    with edited_input(
        smollm2_plain, "model.layers.12.self_attn.o_proj", lambda x: x[:, :, head].zero_()
    ):
        expected = smollm2_plain.logits(tokens)
    assert is_edited(after(4)["logits"], expected, clean)


@torch.no_grad()
def test_attention_pattern(after: After, smollm2_plain: Plain) -> None:
    path = embedded.fetch("smollm2", progress=quiet)
    eager: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    expected = eager(ids(smollm2_plain, FRANCE), output_attentions=True).attentions
    pattern = after(5)["pattern"]
    assert pattern.shape == (1, 9, 5, 5)
    assert close(pattern, expected[12])
    assert not close(pattern, expected[11])


def test_activation_patching(after: After, smollm2_plain: Plain) -> None:
    source = smollm2_plain.output("model.layers.12", ids(smollm2_plain, FRANCE))
    italy = ids(smollm2_plain, ITALY)
    clean = smollm2_plain.logits(italy)

    def patch(value: Tensor) -> Tensor:
        return torch.cat([value[:, :3], source[:, 3:4], value[:, 4:]], dim=1)

    with smollm2_plain.hooked("model.layers.12", patch):
        expected = smollm2_plain.logits(italy)
    assert is_edited(after(6)["logits"], expected, clean)


def test_steering_vector(after: After, smollm2_plain: Plain) -> None:
    love, hate = (
        smollm2_plain.output("model.layers.12", ids(smollm2_plain, text))[0, -1]
        for text in ("I love it", "I hate it")
    )
    tokens = ids(smollm2_plain, FRANCE)
    clean = smollm2_plain.logits(tokens)
    with smollm2_plain.hooked("model.layers.12", lambda value: value + 4 * (love - hate)):
        expected = smollm2_plain.logits(tokens)
    assert is_edited(after(7)["logits"], expected, clean)


def test_gradient_at_a_point(after: After, smollm2_plain: Plain) -> None:
    names = after(8)
    caught: list[Tensor] = []

    def catch(value: Tensor) -> Tensor:
        caught.append(value.detach().requires_grad_())
        return caught[0]

    with smollm2_plain.hooked("model.layers.12", catch):
        logits = smollm2_plain.model(ids(smollm2_plain, FRANCE)).logits
    logits[0, -1, names["paris"]].backward()
    smollm2_plain.model.zero_grad()
    assert caught[0].grad is not None
    assert close(names["gradient"], caught[0].grad, 1e-4)
    assert close(names["loss"], logits[0, -1, names["paris"]])


def test_weights(after: After, smollm2_plain: Plain) -> None:
    names, model = after(9), smollm2_plain.model
    assert torch.equal(names["W_E"], model.model.embed_tokens.weight)
    assert torch.equal(names["W_U"], model.lm_head.weight)
    assert torch.equal(names["W_in"], model.model.layers[4].mlp.up_proj.weight)


def test_generate_with_an_edit(after: After, smollm2_plain: Plain) -> None:
    tokens = ids(smollm2_plain, FRANCE)

    def generate() -> Tensor:
        return smollm2_plain.model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False
        )

    clean = generate()
    with smollm2_plain.hooked("model.layers.2.mlp", torch.zeros_like):
        expected = generate()
    found = after(10)["ids"]
    assert found.tolist() == expected.tolist()
    assert found.tolist() != clean.tolist()
