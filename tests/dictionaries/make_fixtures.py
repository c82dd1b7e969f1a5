"""Dictionaries of every class, written by the libraries that define the formats, with the codes that they compute.

    python tests/dictionaries/make_fixtures.py PATH_TO_openai_sparse_autoencoder

It runs in an environment of its own, which has what `VERSIONS` names (circuit-tracer, sparsify, dictionary-learning and
llamascopium installed with ``--no-deps``: their pins exclude one another), and writes `fixtures.tar.xz` beside itself: the
files, and ``expected.npz`` with inputs, codes and reconstructions. Two layouts have no public writer, Gemma Scope's and Llama
Scope's first; their files are written here as their readers read them, and the readers compute.

Weights are multiples of 1/32, so that the archive is small. D = 16, F = 48.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

VERSIONS = {
    "torch": "2.13.0",
    "sae-lens": "6.54.12",
    "eai-sparsify": "1.3.3",
    "dictionary-learning": "0.1.0",
    "circuit-tracer": "0.5.0",
    "llamascopium": "2.0.0b34",
}
OPENAI = "openai/sparse_autoencoder 4965b94"
D, F, OUT, L = 16, 48, 12, 3
TOKENS = 8

Made = tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]
"""Name, input, codes, reconstruction."""


def draw(*shape: int, scale: float = 0.3) -> torch.Tensor:
    return (torch.randn(*shape) * scale * 32).round() / 32


def fill(module: torch.nn.Module) -> Any:
    """Redraw every parameter: biases too, and decoders whose rows have norms of their own."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(draw(*parameter.shape))
    return module.eval()


def inputs(*shape: int) -> torch.Tensor:
    return draw(*(shape or (TOKENS, D)), scale=1.5)


# SAELens ------------------------------------------------------------------------------------------------------------


def saelens(root: Path) -> Iterator[Made]:
    from sae_lens import saes
    from sae_lens.saes.abstopk_sae import AbsTopKSAE, AbsTopKSAEConfig
    from sae_lens.saes.sae import SAE, SAEMetadata

    def write(
        name: str,
        sae_class: Any,
        config_class: Any,
        x: Any = None,
        head: Any = None,
        **options: Any,
    ) -> Made:
        metadata = SAEMetadata(
            model_name="gpt2", hook_name=head or "blocks.3.hook_resid_post", prepend_bos=True
        )
        if "ranscoder" in sae_class.__name__:
            metadata = SAEMetadata(
                model_name="gpt2",
                hook_name="blocks.3.ln2.hook_normalized",
                hook_name_out="blocks.3.hook_mlp_out",
            )
        sae = fill(sae_class(config_class(d_in=D, d_sae=F, metadata=metadata, **options)))
        if hasattr(sae, "threshold"):
            with torch.no_grad():
                sae.threshold.copy_(draw(F, scale=0.6))  # negative ones too
        if name.startswith("saelens-temporal"):
            _lean_on_context(sae)
        sae.save_model(root / name)
        read = SAE.load_from_disk(root / name)
        x = inputs() if x is None else x
        with torch.no_grad():
            return name, x, read.encode(x), read(x)

    S = saes
    yield write("saelens-standard", S.StandardSAE, S.StandardSAEConfig)
    yield write(
        "saelens-standard-raw", S.StandardSAE, S.StandardSAEConfig, apply_b_dec_to_input=False
    )
    yield write(
        "saelens-layer_norm", S.StandardSAE, S.StandardSAEConfig, normalize_activations="layer_norm"
    )
    yield write(
        "saelens-norm",
        S.TopKSAE,
        S.TopKSAEConfig,
        normalize_activations="constant_norm_rescale",
        k=5,
    )
    yield write("saelens-gated", S.GatedSAE, S.GatedSAEConfig)
    yield write("saelens-topk", S.TopKSAE, S.TopKSAEConfig, k=5)
    yield write(
        "saelens-topk-rescaled", S.TopKSAE, S.TopKSAEConfig, k=5, rescale_acts_by_decoder_norm=True
    )
    yield write(
        "saelens-abstopk", AbsTopKSAE, AbsTopKSAEConfig, k=5, rescale_acts_by_decoder_norm=True
    )
    yield write("saelens-jumprelu", S.JumpReLUSAE, S.JumpReLUSAEConfig)
    yield write(
        "saelens-hook_z",
        S.StandardSAE,
        S.StandardSAEConfig,
        inputs(TOKENS, 4, D // 4),
        "blocks.3.attn.hook_z",
        reshape_activations="hook_z",
    )
    no_bias = {"apply_b_dec_to_input": False}
    yield write("saelens-transcoder", S.Transcoder, S.TranscoderConfig, d_out=OUT, **no_bias)
    yield write(
        "saelens-transcoder-layer_norm",
        S.Transcoder,
        S.TranscoderConfig,
        d_out=OUT,
        normalize_activations="layer_norm",
        **no_bias,
    )
    yield write(
        "saelens-skip_transcoder", S.SkipTranscoder, S.SkipTranscoderConfig, d_out=D, **no_bias
    )
    yield write(
        "saelens-jumprelu_transcoder",
        S.JumpReLUTranscoder,
        S.JumpReLUTranscoderConfig,
        d_out=OUT,
        **no_bias,
    )
    yield write(
        "saelens-jumprelu_skip_transcoder",
        S.JumpReLUSkipTranscoder,
        S.JumpReLUSkipTranscoderConfig,
        d_out=D,
        **no_bias,
    )
    yield write(
        "saelens-matching_pursuit",
        S.MatchingPursuitSAE,
        S.MatchingPursuitSAEConfig,
        residual_threshold=0.5,
        max_iterations=6,
    )
    small = {
        "n_heads": 2,
        "bottleneck_factor": 4,
        "activation_normalization_factor": 0.5,
        "normalize_activations": "constant_scalar_rescale",
    }
    together = inputs(2, 7, D)
    yield write(
        "saelens-temporal", S.TemporalSAE, S.TemporalSAEConfig, together, kval_topk=5, **small
    )
    yield write(
        "saelens-temporal-untied",
        S.TemporalSAE,
        S.TemporalSAEConfig,
        together,
        tied_weights=False,
        sae_diff_type="relu",
        apply_b_dec_to_input=False,
        **small,
    )
    yield from saelens_trained(root)
    yield from saelens_before_6(root)


def _lean_on_context(sae: Any) -> None:
    """Weights with which what earlier tokens predict is not the same for all: it divides latents by 4D, and biases are large."""
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name in ("W_dec", "W_enc"):
                parameter *= 8
            elif name.startswith("attn_layers"):
                parameter *= 0 if name.endswith("bias") else 4


def saelens_trained(root: Path) -> Iterator[Made]:
    """Files of classes that exist in training only: as trained, which are refused, and for inference."""
    from sae_lens import saes
    from sae_lens.saes.sae import SAE, SAEMetadata

    kinds = {
        "batchtopk": (saes.BatchTopKTrainingSAE, saes.BatchTopKTrainingSAEConfig, {}),
        "matryoshka": (saes.MatryoshkaBatchTopKTrainingSAE, saes.MatryoshkaBatchTopKTrainingSAEConfig,
                       {"matryoshka_widths": [16, 48]}),
    }  # fmt: skip
    for name, (sae_class, config_class, more) in kinds.items():
        metadata = SAEMetadata(model_name="gpt2", hook_name="blocks.3.hook_mlp_out")
        sae = fill(sae_class(config_class(d_in=D, d_sae=F, k=5.0, metadata=metadata, **more)))
        with torch.no_grad():
            sae.topk_threshold.fill_(1.25)
        if name == "batchtopk":
            sae.save_model(root / "saelens-batchtopk-training")
        sae.save_inference_model(root / f"saelens-{name}")
        read = SAE.load_from_disk(root / f"saelens-{name}")
        x = inputs()
        with torch.no_grad():
            yield f"saelens-{name}", x, read.encode(x), read(x)


def saelens_before_6(root: Path) -> Iterator[Made]:
    """Configurations as versions before 6.0 wrote them, beside the same weights."""
    from sae_lens.saes.sae import SAE

    old = {
        "d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu", "model_name": "gpt2", "context_size": 128,
        "prepend_bos": True, "normalize_activations": "none", "finetuning_scaling_factor": False,
    }  # fmt: skip
    configs: dict[str, dict[str, Any]] = {
        "saelens-5-standard": {**old, "hook_point": "blocks.3.hook_resid_pre", "normalize_activations": False},
        "saelens-5-topk": {**old, "hook_name": "blocks.3.hook_mlp_out", "activation_fn_str": "topk",
                           "activation_fn_kwargs": {"k": 5}, "apply_b_dec_to_input": False},
    }  # fmt: skip
    for name, config in configs.items():
        (root / name).mkdir()
        (root / name / "cfg.json").write_text(json.dumps(config))
        weights = {"W_enc": draw(D, F), "b_enc": draw(F), "W_dec": draw(F, D), "b_dec": draw(D)}
        save_file(weights, root / name / "sae_weights.safetensors")
        read = SAE.load_from_disk(root / name)
        x = inputs()
        with torch.no_grad():
            yield name, x, read.encode(x), read(x)


# sparsify -----------------------------------------------------------------------------------------------------------


def sparsify(root: Path) -> Iterator[Made]:
    from sparsify import SparseCoder, SparseCoderConfig

    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "sparsify-topk": ("layers.3", {"k": 5}),
        "sparsify-groupmax": ("layers.3.mlp", {"k": 6, "activation": "groupmax"}),
        "sparsify-skip": ("transformer.h.3", {"k": 5, "skip_connection": True}),
        "sparsify-transcode": ("layers.3.mlp", {"k": 5, "transcode": True}),
        "sparsify-transcode-skip": (
            "layers.3.mlp",
            {"k": 5, "transcode": True, "skip_connection": True},
        ),
    }
    for name, (folder, options) in kinds.items():
        config = SparseCoderConfig(num_latents=F, **options)
        fill(SparseCoder(D, config)).save_to_disk(root / name / folder)
        read = SparseCoder.load_from_disk(root / name / folder)
        x = inputs()
        with torch.no_grad():
            values, indices, _ = read.encode(x)
            codes = torch.zeros(TOKENS, F).scatter_(-1, indices, values)
            yield f"{name}/{folder}", x, codes, read(x).sae_out


# dictionary-learning ------------------------------------------------------------------------------------------------


def dictionary_learning(root: Path) -> Iterator[Made]:
    from dictionary_learning import dictionary
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made: dict[str, Any] = {
        "AutoEncoder": dictionary.AutoEncoder(D, F),
        "AutoEncoderNew": dictionary.AutoEncoderNew(D, F),
        "GatedAutoEncoder": dictionary.GatedAutoEncoder(D, F),
        "JumpReluAutoEncoder": dictionary.JumpReluAutoEncoder(D, F),
        "AutoEncoderTopK": AutoEncoderTopK(D, F, 5),
        "BatchTopKSAE": BatchTopKSAE(D, F, 5),
        "MatryoshkaBatchTopKSAE": MatryoshkaBatchTopKSAE(D, F, 5, [16, 32]),
    }
    for name, module in made.items():
        fill(module)
        if "TopK" in name:
            module.threshold.fill_(0.75)
        folder = root / "dictionary_learning" / name / "trainer_0"
        folder.mkdir(parents=True)
        torch.save(module.state_dict(), folder / "ae.pt")
        trainer = {"dict_class": name, "activation_dim": D, "dict_size": F, "layer": 3, "lm_name": "gpt2",
                   "submodule_name": "resid_post_layer_3"}  # fmt: skip
        config = {
            "trainer": trainer | ({"k": 5} if "TopK" in name else {}),
            "buffer": {"d_submodule": D, "io": "out", "ctx_len": 128},
        }
        (folder / "config.json").write_text(json.dumps(config))
        options = {"normalize_decoder": False} if name == "AutoEncoder" else {}
        read = type(module).from_pretrained(folder / "ae.pt", **options)
        x = inputs()
        with torch.no_grad():
            yield f"dictionary_learning/{name}/trainer_0", x, read.encode(x), read(x)


# circuit-tracer, Gemma Scope ----------------------------------------------------------------------------------------


def circuit_tracer(root: Path) -> Iterator[Made]:
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt
    from circuit_tracer.transcoder.single_layer_transcoder import (
        SingleLayerTranscoder,
        load_relu_transcoder,
    )

    hooks = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\nscan: none\n"
    kinds = {"relu": (torch.nn.functional.relu, False), "jumprelu": (JumpReLU(draw(F)), False),
             "skip": (JumpReLU(draw(F)), True)}  # fmt: skip
    for name, (activation, skip) in kinds.items():
        folder = root / f"circuit_tracer-{name}"
        folder.mkdir()
        (folder / "config.yaml").write_text(
            f"model_name: gpt2\nmodel_kind: transcoder_set\n{hooks}"
        )
        transcoder = fill(
            SingleLayerTranscoder(D, F, activation, 3, skip_connection=skip, dtype=torch.float32)
        )
        transcoder.to_safetensors(str(folder / "layer_3.safetensors"))
        read = load_relu_transcoder(str(folder / "layer_3.safetensors"), 3)
        x = inputs()
        with torch.no_grad():
            yield f"{folder.name}/layer_3.safetensors", x, read.encode(x), read(x)
    for name in ("relu", "jump_relu"):
        folder = root / f"circuit_tracer-clt-{name}"
        fill(
            CrossLayerTranscoder(L, F, D, name, lazy_decoder=False, dtype=torch.float32)
        ).to_safetensors(str(folder))
        (folder / "config.yaml").write_text(
            f"model_name: gpt2\nmodel_kind: cross_layer_transcoder\n{hooks}"
        )
        read = load_clt(str(folder), dtype=torch.float32)
        x = inputs(L, TOKENS, D)
        with torch.no_grad():
            yield (
                folder.name,
                x.transpose(0, 1),
                read.encode(x).transpose(0, 1),
                read(x).transpose(0, 1),
            )


def gemma_scope(root: Path) -> Iterator[Made]:
    from circuit_tracer.transcoder.cross_layer_transcoder import load_gemma_scope_2_clt
    from circuit_tracer.transcoder.single_layer_transcoder import (
        load_gemma_scope_2_transcoder,
        load_gemma_scope_transcoder,
    )

    def weights(**more: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"w_enc": draw(D, F), "w_dec": draw(F, D), "b_enc": draw(F), "b_dec": draw(D),
                "threshold": draw(F, scale=0.6).abs(), **more}  # fmt: skip

    for name, folder in {
        "gemma_scope": "gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_71",
        "gemma_scope-transcoder": "gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_71",
    }.items():
        path = root / name / folder
        path.mkdir(parents=True)
        upper = {key.replace("w_", "W_"): value.numpy() for key, value in weights().items()}
        np.savez(path / "params.npz", **upper)
        read: Any = load_gemma_scope_transcoder(str(path / "params.npz"), 3)
        x = inputs()
        with torch.no_grad():
            yield f"{name}/{folder}", x, read.encode(x), read(x)
    config: dict[str, Any] = {
        "architecture": "jump_relu",
        "model_name": "google/gemma-3-1b-pt",
        "width": F,
        "l0": 20,
    }
    kinds: dict[str, Any] = {
        "gemma_scope_2": ({"hf_hook_point_in": "model.layers.3.output"}, {}),
        "gemma_scope_2-transcoder": (
            {"hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
             "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output", "affine_connection": True},
            {"affine_skip_connection": draw(D, D)},
        ),
    }  # fmt: skip
    for name, (more, tensors) in kinds.items():
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(config | more))
        save_file(weights(**tensors), root / name / "params.safetensors")
        read = load_gemma_scope_2_transcoder(str(root / name / "params.safetensors"), 3)
        x = inputs()
        with torch.no_grad():
            yield name, x, read.encode(x), read(x)
    folder_ = root / "gemma_scope_2-clt"
    folder_.mkdir()
    (folder_ / "config.json").write_text(json.dumps(config))
    paths = {i: str(folder_ / f"params_layer_{i}.safetensors") for i in range(L)}
    for path_ in paths.values():
        layer = {**weights(), "w_dec": draw(F, L, D), "affine_skip_connection": draw(D, D)}
        save_file(layer, path_)
    # It reads as many files as the largest index says, one too few.
    read = load_gemma_scope_2_clt(paths | {L: ""}, dtype=torch.float32)
    x = inputs(L, TOKENS, D)
    with torch.no_grad():
        codes = read.encode(x)
        # Its forward() asserts where there is a skip.
        yield (
            folder_.name,
            x.transpose(0, 1),
            codes.transpose(0, 1),
            read.decode(codes, x).transpose(0, 1),
        )


# Llama Scope --------------------------------------------------------------------------------------------------------


def llama_scope(root: Path) -> Iterator[Made]:
    from llamascopium.models.clt import CLTConfig, CrossLayerTranscoder
    from llamascopium.models.crosscoder import Crosscoder, CrosscoderConfig
    from llamascopium.models.sae import SAEConfig, SparseAutoEncoder
    from llamascopium.models.sparse_dictionary import SparseDictionary

    at, out = "blocks.3.hook_resid_post", "blocks.3.hook_mlp_out"
    sites = [f"blocks.{i}.hook_resid_post" for i in range(L)]
    one = {"hook_point_in": at, "hook_point_out": at}
    layers = {"hook_points_in": [f"blocks.{i}.ln2.hook_normalized" for i in range(L)],
              "hook_points_out": [f"blocks.{i}.hook_mlp_out" for i in range(L)]}  # fmt: skip
    kinds: dict[str, tuple[Any, Any]] = {
        "relu": (SparseAutoEncoder, SAEConfig(**one, **_llama(act_fn="relu"))),
        "topk": (SparseAutoEncoder, SAEConfig(**one, **_llama(act_fn="topk", top_k=5))),
        "jumprelu": (SparseAutoEncoder, SAEConfig(**one, **_llama(act_fn="jumprelu"))),
        "no-norm": (SparseAutoEncoder, SAEConfig(**one, **_llama(act_fn="jumprelu", sparsity_include_decoder_norm=False))),
        "glu": (SparseAutoEncoder, SAEConfig(**one, **_llama(act_fn="jumprelu", use_glu_encoder=True))),
        "token-wise": (SparseAutoEncoder, SAEConfig(**one, **_llama(norm_activation="token-wise", use_decoder_bias=False))),
        "transcoder": (SparseAutoEncoder, SAEConfig(hook_point_in=at, hook_point_out=out, **_llama(act_fn="topk", top_k=5))),
        "folded": (SparseAutoEncoder, SAEConfig(**one, **_llama(act_fn="topk", top_k=5))),
        "crosscoder": (Crosscoder, CrosscoderConfig(hook_points=sites, **_llama(act_fn="jumprelu"))),
        "clt": (CrossLayerTranscoder, CLTConfig(**layers, **_llama(act_fn="jumprelu"))),
        "clt-topk": (CrossLayerTranscoder, CLTConfig(**layers, **_llama(act_fn="topk", top_k=5, sparsity_include_decoder_norm=False))),
        "clt-layertopk": (CrossLayerTranscoder, CLTConfig(**layers, **_llama(act_fn="layertopk", top_k=9))),
    }  # fmt: skip
    norms = {
        hook: 11.0 - i
        for i, hook in enumerate(
            [at, out, *sites, *layers["hook_points_in"], *layers["hook_points_out"]]
        )
    }
    for name, (model_class, config) in kinds.items():
        model = fill(model_class(config))
        model.set_dataset_average_activation_norm(
            {hook: norms[hook] for hook in config.associated_hook_points}
        )
        folder = root / f"llama_scope-{name}"
        model.save_pretrained(folder, fold_activation_scale=name == "folded")
        model.cfg.save_hyperparameters(folder)
        read: Any = SparseDictionary.from_pretrained(str(folder))
        many = len(config.hooks_in)
        x = inputs(TOKENS, many, D)
        batch, scales = read.normalize_activations(
            {hook: x[:, i] for i, hook in enumerate(config.hooks_in)}, return_scale_factor=True
        )
        z = torch.stack([batch[hook] for hook in config.hooks_in], 1)
        with torch.no_grad():
            if many == 1:
                codes = read.encode(z[:, 0])
                y = read.decode(codes)[:, None]
            else:
                codes = read.encode(z)
                y = read.decode(codes, batch_first=True) if "clt" in name else read.decode(codes)
            back = [
                scales[hook] if hook in scales else read.compute_norm_factor(x[:, 0], hook)
                for hook in config.hooks_out
            ]
            y = torch.stack([y[:, i] / scale for i, scale in enumerate(back)], 1)
        yield folder.name, x if many > 1 else x[:, 0], codes, y if many > 1 else y[:, 0]
        if name == "relu":  # a model that was saved before its norms were measured
            unset = root / "llama_scope-unset"
            unset.mkdir()
            (unset / "config.json").write_text((folder / "config.json").read_text())
            tensors = load_file(folder / "sae_weights.safetensors")
            for key in tensors:
                if key.startswith("dataset_average"):
                    tensors[key] = torch.tensor(2.5e17)
            save_file(tensors, unset / "sae_weights.safetensors")
    yield from llama_scope_first(root)


def _llama(**options: Any) -> dict[str, Any]:
    return {
        "d_model": D,
        "expansion_factor": F / D,
        "device": "cpu",
        "dtype": torch.float32,
        **options,
    }


def llama_scope_first(root: Path) -> Iterator[Made]:
    """The layout of the first releases, as SAELens reads it."""
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.saes.sae import SAE

    folder = root / "llama_scope-first"
    (folder / "checkpoints").mkdir(parents=True)
    config = {
        "hook_point_in": "blocks.3.hook_resid_post", "hook_point_out": "blocks.3.hook_resid_post", "d_model": D, "d_sae": F,
        "expansion_factor": 3, "act_fn": "jumprelu", "jump_relu_threshold": 0.5, "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 11.0, "out": 11.0}, "use_decoder_bias": True, "use_glu_encoder": False,
        "apply_decoder_bias_to_pre_encoder": False, "sparsity_include_decoder_norm": False,
    }  # fmt: skip
    (folder / "hyperparams.json").write_text(json.dumps(config))
    save_file(
        {
            "encoder.weight": draw(F, D),
            "encoder.bias": draw(F),
            "decoder.weight": draw(D, F),
            "decoder.bias": draw(D),
        },
        folder / "checkpoints" / "final.safetensors",
    )
    loaders.hf_hub_download = lambda repo_id, filename, subfolder="", **_: str(
        root / subfolder / filename
    )  # type: ignore
    read_config, weights, _ = loaders.llama_scope_sae_huggingface_loader(
        "none", folder.name, cfg_overrides={"dtype": "float32"}
    )
    sae = SAE.from_dict(loaders.handle_config_defaulting(read_config))
    sae.load_state_dict(weights)
    sae.fold_activation_norm_scaling_factor(D**0.5 / 11.0)
    x = inputs()
    with torch.no_grad():
        yield folder.name, x, sae.encode(x), sae(x)


# OpenAI -------------------------------------------------------------------------------------------------------------


def openai(root: Path, model: Any) -> Iterator[Made]:
    kinds = {
        "relu": torch.nn.ReLU(),
        "topk": model.TopK(5),
        "identity-topk": model.TopK(5, torch.nn.Identity()),
    }
    for name, activation in kinds.items():
        folder = root / f"openai-{name}" / "v5_32k" / "layer_3" / "resid_post_mlp"
        folder.mkdir(parents=True)
        made = fill(model.Autoencoder(F, D, activation, normalize="topk" in name))
        state = made.state_dict()
        state = {
            key: state[key] for key in state if not key.startswith("activation.")
        }  # its strict reader refuses these
        if "topk" in name:
            state["activation_state_dict"] = {
                "k": 5,
                "postact_fn": type(activation.postact_fn).__name__,
            }
        torch.save(state, folder / "autoencoder.pt")
        read = model.Autoencoder.from_state_dict(
            torch.load(folder / "autoencoder.pt", weights_only=True)
        )
        x = inputs()
        with torch.no_grad():
            codes, info = read.encode(x)
            yield f"{folder.relative_to(root)}", x, codes, read.decode(codes, info)
    tied = fill(model.Autoencoder(F, D, torch.nn.ReLU(), tied=True))
    folder = root / "openai-tied"
    folder.mkdir()
    torch.save(tied.state_dict(), folder / "autoencoder.pt")
    x = inputs()
    with torch.no_grad():
        codes, info = tied.encode(x)
        yield folder.name, x, codes, tied.decode(codes, info)


def main(openai_repository: Path) -> None:
    for package, version in VERSIONS.items():
        assert importlib.metadata.version(package).split("+")[0] == version, package
    spec = importlib.util.spec_from_file_location(
        "model", openai_repository / "sparse_autoencoder" / "model.py"
    )
    assert spec and spec.loader
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        expected: dict[str, np.ndarray] = {}
        made = [saelens, sparsify, dictionary_learning, circuit_tracer, gemma_scope, llama_scope]
        for results in (*(make(root) for make in made), openai(root, model)):
            for name, x, codes, reconstruction in results:
                for what, value in (("x", x), ("codes", codes), ("reconstruction", reconstruction)):
                    expected[f"{name}|{what}"] = value.detach().numpy()
                print(
                    f"{name:60} {list(codes.shape)} L0 {float((codes != 0).sum(-1).float().mean()):.1f}"
                )
        np.savez_compressed(root / "expected.npz", **expected)
        (root / "versions.json").write_text(json.dumps({**VERSIONS, "openai": OPENAI}, indent=1))
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:xz", preset=9) as tar:
            for file in sorted(root.rglob("*")):
                if file.is_file():
                    tar.add(file, file.relative_to(root), filter=_plain)
        target = Path(__file__).with_name("fixtures.tar.xz")
        target.write_bytes(archive.getvalue())
        print(len(expected) // 3, "dictionaries,", target.stat().st_size, "bytes")


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


if __name__ == "__main__":
    main(Path(sys.argv[1]))
