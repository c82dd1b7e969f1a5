"""What the path of a model means: every kind of word, and every mistake with its message."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from transformers import AutoModelForCausalLM

from garcon_jupyter.errors import BadDegrees, FetchFailed, GarconError, NotAModel
from garcon_jupyter.model_files import quantised, snapshots
from garcon_jupyter.model_files.embedded import EMBEDDED
from tests.checkpoints import make_gpt2, make_llama

NOWHERE = "http://127.0.0.1:9"  # the discard port: connections are refused at once


# Words that are models --------------------------------------------------------------------------


def test_a_directory(tmp_path: Path) -> None:
    made = make_llama(tmp_path / "tiny")
    found = snapshots.resolve(f" {made} ")
    assert found.path == made.resolve()
    assert found.name == "tiny"
    assert found.source == "directory"
    assert found.config["model_type"] == "llama"
    assert found.config["num_key_value_heads"] == 2
    expected = AutoModelForCausalLM.from_pretrained(made).num_parameters()
    assert snapshots.parameter_count(found) == expected
    assert snapshots.weight_bytes(found) == 4 * expected


def test_a_relative_path_and_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_llama(tmp_path / "tiny")
    monkeypatch.chdir(made)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert snapshots.resolve(".") == snapshots.resolve("~/tiny") == snapshots.resolve(made)


@pytest.mark.parametrize("word", ["smollm2", "SmolLM2"])
def test_an_embedded_name_in_any_case(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_llama(tmp_path / "smollm2")
    monkeypatch.chdir(tmp_path)  # a directory of that name does not come first
    found = snapshots.resolve(word)
    assert (found.name, found.source) == ("smollm2", "embedded")
    assert found.path != tmp_path / "smollm2"
    assert found.config["hidden_size"] == 576
    assert snapshots.parameter_count(found) == 134_515_008
    assert snapshots.resolve("./smollm2").source == "directory"


@pytest.mark.processes
def test_the_notebook_pays_for_no_torch() -> None:
    code = (
        "import sys; from garcon_jupyter.model_files import snapshots; snapshots.resolve('smollm2'); "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Words that are not -----------------------------------------------------------------------------


def refusal(word: str | Path) -> str:
    with pytest.raises(NotAModel) as refused:
        snapshots.resolve(word)
    assert refused.value.problem
    assert refused.value.remedy
    return str(refused.value)


def test_nothing() -> None:
    assert "smollm2" in EMBEDDED
    names = ", ".join(EMBEDDED)
    assert refusal("  ").startswith(f"No model was named. Give an embedded model ({names}), ")


def test_a_missing_path_says_which_part_is_missing(tmp_path: Path) -> None:
    wrong = tmp_path / "modles" / "tiny"
    message = refusal(wrong)
    assert f"There is no {wrong}: {tmp_path / 'modles'} does not exist." in message
    assert "a hub id such as EleutherAI/pythia-70m" in message


def test_a_mistyped_name_gets_the_nearest(tmp_path: Path) -> None:
    assert "There is no smolm2. Did you mean smollm2?" in refusal("smolm2")
    make_llama(tmp_path / "Tiny-Llama")
    assert f"Did you mean {tmp_path / 'Tiny-Llama'}?" in refusal(tmp_path / "tiny_lama")


def test_a_file(tmp_path: Path) -> None:
    made = make_llama(tmp_path / "tiny")
    message = refusal(made / "model.safetensors")
    assert "model.safetensors is a file, not a model's directory." in message
    assert f"Give the directory that it is in: {made}." in message


def test_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    command = f"python -m garcon_backend.models.convert_gguf {tmp_path / 'm.gguf'} DIRECTORY"
    assert command in refusal(tmp_path / "m.gguf")
    assert command in refusal(tmp_path)


def test_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert f"link is a link to {tmp_path / 'gone'}, which is missing." in refusal(tmp_path / "link")


def test_an_impossible_name() -> None:
    assert "cannot be read: File name too long." in refusal("x" * 5000)


def test_an_empty_directory(tmp_path: Path) -> None:
    assert "is a directory without config.json: it is empty." in refusal(tmp_path)


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    for name in "abcde":
        (tmp_path / name).write_text("")
    assert "is a directory without config.json; it holds a, b, c, d, …." in refusal(tmp_path)


def test_a_directory_of_models(tmp_path: Path) -> None:
    make_llama(tmp_path / "checkpoint-100")
    message = refusal(tmp_path)
    assert "is not a model but holds 1 of them." in message
    assert f"Give one: {tmp_path / 'checkpoint-100'}." in message


def test_an_adapter_beside_a_whole_model(tmp_path: Path) -> None:
    made = make_llama(tmp_path)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (made / name).write_text("{}")
        assert f"holds an adapter ({name}) beside a whole model." in refusal(tmp_path)


QUANTISED = {
    "gptq": ({"quant_method": "gptq", "bits": 4}, "needs optimum and gptqmodel, and they are not"),
    "awq": ({"quant_method": "awq"}, "needs gptqmodel, and that is not installed"),
    "bitsandbytes": ({"quant_method": "bitsandbytes"}, "needs bitsandbytes, and"),
    "old bitsandbytes": ({"load_in_4bit": True}, "needs bitsandbytes, and"),
    "compressed-tensors": ({"quant_method": "compressed-tensors"}, "needs compressed-tensors, and"),
    "quanto": ({"quant_method": "quanto"}, "needs optimum-quanto, and"),
    "modelopt": ({"quant_method": "modelopt"}, "does not know that way of packing"),
}


@pytest.mark.parametrize("case", QUANTISED)
def test_packed_weights_that_nothing_here_reads(case: str, tmp_path: Path) -> None:
    packing, complaint = QUANTISED[case]
    file = make_llama(tmp_path) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": packing}))
    assert complaint in refusal(tmp_path)


def test_what_packing_needs_is_known_of_every_method_of_transformers() -> None:
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    ours = set(quantised.METHODS) - {"bitsandbytes"} | {"bitsandbytes_4bit", "bitsandbytes_8bit"}
    assert ours == set(AUTO_QUANTIZATION_CONFIG_MAPPING)


def test_packed_weights_for_a_gpu_or_over_processes() -> None:
    packed = {"quantization_config": {"quant_method": "eetq"}}
    with pytest.raises(NotAModel, match="runs on GPUs only"):
        quantised.check_place(packed, "here", "cpu", {})
    with pytest.raises(BadDegrees, match="tp=2 asks for it"):
        quantised.check_place(packed, "here", "cuda", {"tp": 2, "pp": 1})
    quantised.check_place(packed, "here", "cuda", {"tp": 1})


def test_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "holds an adapter, not a whole model. Launch its base model" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"model_type": ', "config.json is not JSON: Expecting value: line 1 column 16"),
        ("[1]", "config.json holds a list, not an object."),
        ("{}", "config.json has no model_type, so its architecture is unknown."),
        ('{"model_type": 3}', "config.json has no model_type"),
        (
            '{"model_type": "lamma"}',
            "has the model_type 'lamma', which transformers does not know. Did you mean llama",
        ),
        ('{"model_type": "t5"}', "is of a t5, which is no causal language model."),
        ('{"model_type": "llama"}', "has a configuration but no weights"),
    ],
)
def test_a_bad_configuration(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert complaint in refusal(tmp_path)


def test_damaged_weights(tmp_path: Path) -> None:
    file = make_llama(tmp_path) / "model.safetensors"
    os.truncate(file, 100_000)
    assert "model.safetensors is cut short: it has 100,000 of its " in refusal(tmp_path)


def test_a_file_that_is_called_a_pickle(tmp_path: Path) -> None:
    (make_llama(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin is no file that torch wrote" in refusal(tmp_path)


# Hub ids ----------------------------------------------------------------------------------------


def cached(root: Path, repository: str) -> Path:
    """A place for `repository` in a hub cache at `root`, as the hub's library lays it out."""
    entry = root / f"models--{repository.replace('/', '--')}"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    return entry / "snapshots" / "0123456789abcdef0123456789abcdef01234567"


def test_a_hub_id_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    made = make_gpt2(cached(tmp_path, "someone/tiny-gpt2"))
    said: list[str] = []
    found = snapshots.resolve("someone/tiny-gpt2", said.append)
    assert (found.path, found.name, found.source) == (made, "tiny-gpt2", "hub")
    assert said == []
    assert snapshots.server_name(found.path).startswith("tiny-gpt2-")


def ask_hub(word: str, endpoint: str, cache: Path) -> str:
    """What `resolve` raises in a fresh process whose hub is at `endpoint`."""
    code = (
        "import sys; from garcon_jupyter.model_files import snapshots\n"
        "try: snapshots.resolve(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, word],
        env={
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": "0",  # the other tests never ask a hub
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_an_old_hub_id_without_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    made = make_gpt2(cached(tmp_path, "gpt2"))
    found = snapshots.resolve("gpt2")
    assert (found.path, found.name, found.source) == (made, "gpt2", "hub")


@pytest.mark.parametrize("word", ["gpt2", "someone/some-model"])
def test_where_the_hub_must_not_be_asked_the_error_says_so(word: str) -> None:
    with pytest.raises(GarconError) as refused:  # the tests set HF_HUB_OFFLINE
        snapshots.resolve(word)
    assert "The hub was not asked, as HF_HUB_OFFLINE is set" in str(refused.value)
    assert type(refused.value) is (FetchFailed if "/" in word else NotAModel)


@pytest.mark.processes
def test_an_old_hub_id_is_asked_for_where_there_is_a_hub(hub: str, tmp_path: Path) -> None:
    said = ask_hub("gpt2", hub, tmp_path)
    assert "Asking the Hugging Face hub for gpt2.\n" in said
    assert "NotAModel 'gpt2' is no directory here, and the hub has no model of that name" in said
    said = ask_hub("smolm2", NOWHERE, tmp_path)
    assert "the hub, which was asked, cannot be reached" in said
    assert "Did you mean smollm2?" in said


@pytest.mark.processes
def test_a_hub_id_without_network(tmp_path: Path) -> None:
    said = ask_hub("someone/some-model", NOWHERE, tmp_path)
    assert "Asking the Hugging Face hub for someone/some-model.\n" in said
    assert "FetchFailed 'someone/some-model' is no directory here; as a hub id it needs" in said
    assert "Connection refused" in said
    assert f"give an embedded model ({', '.join(EMBEDDED)}) or a directory." in said


@pytest.mark.processes
def test_half_a_hub_model_without_network(tmp_path: Path) -> None:
    made = make_gpt2(cached(tmp_path, "someone/half"))
    (made / "model.safetensors").unlink()
    said = ask_hub("someone/half", NOWHERE, tmp_path)
    assert "NotAModel What the hub's local cache has of someone/half cannot be served: " in said
    assert "has a configuration but no weights" in said
    assert "try again with network" in said


class _Hub(http.server.BaseHTTPRequestHandler):
    """A hub that has no model, and one that is gated."""

    def do_GET(self) -> None:
        gated = "gated" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.processes
def test_a_hub_id_that_the_hub_lacks(hub: str, tmp_path: Path) -> None:
    said = ask_hub("someone/no-such-model", hub, tmp_path)
    assert "NotAModel 'someone/no-such-model' is no directory here, and the hub has no" in said


@pytest.mark.processes
def test_a_hub_id_behind_a_licence(hub: str, tmp_path: Path) -> None:
    said = ask_hub("someone/gated", hub, tmp_path)
    assert "FetchFailed The hub gives someone/gated only to those who accepted its" in said


def test_a_word_that_looks_like_a_hub_id_but_cannot_be_one() -> None:
    assert "'some--one/model.git' is no directory here and cannot be" in refusal(
        "some--one/model.git"
    )


# Names of servers -------------------------------------------------------------------------------


def test_server_names(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "tiny", tmp_path / "b" / "tiny"
    one.mkdir(parents=True)
    other.mkdir(parents=True)
    (tmp_path / "link").symlink_to(one)
    name = snapshots.server_name(one)
    assert name.startswith("tiny-")
    assert len(name) == len("tiny-") + 6
    assert int(name[-6:], 16) >= 0
    assert snapshots.server_name(other) != name
    assert snapshots.server_name(tmp_path / "link") == name
    assert snapshots.server_name(one / ".." / "tiny") == name


@pytest.mark.parametrize("base", ["a b/c:d", "ünï", "...", "x" * 200])
def test_server_names_are_file_names(base: str, tmp_path: Path) -> None:
    name = snapshots.server_name(tmp_path / base)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert name[0] not in ".-"
    assert len(name) <= 55


def test_the_configuration_is_the_file(tmp_path: Path) -> None:
    made = make_llama(tmp_path)
    assert snapshots.resolve(made).config == json.loads((made / "config.json").read_text())
