"""What is asked of a generation: the caller's options, the checkpoint's own settings, and what cannot be had.

The options are those of transformers' ``generate``. What they come to is found as transformers finds it: an option
first, then the file ``generation_config.json``, then the library's default; but without an option a generation takes
the likeliest token, and 20 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    EosTokenCriteria,
    GenerationConfig,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StopStringCriteria,
)

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.libraries.transformers_internals import generation_settings
from garcon_jupyter.errors import BadRequest

DEFAULT_NEW_TOKENS = 20

_BATCH = "The prompt and its mask are what they come from."
_CACHE = ("is the server's own", "Edit keys and values by probes.")
_PROBE = "A probe on the point that you want records it, step by step."

_NOT_TEXT = (
    "is not text, and a served model is given text alone",
    "Say in words what is to be seen.",
)

REFUSED: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        (
            *("pixel_values", "pixel_values_videos", "image_sizes", "image_grid_thw"),
            *("video_grid_thw", "input_features", "mm_encoder_outputs"),
        ),
        _NOT_TEXT,
    ),
    "inputs": ("is the prompt", "Give it as the first argument."),
    "input_ids": ("is the prompt", "Give it as the first argument."),
    "inputs_embeds": ("would stand for tokens that nobody knows", "Edit `embed` by a probe."),
    "attention_mask": ("comes from the prompt", _BATCH),
    "position_ids": ("comes from the prompt", _BATCH),
    "cache": _CACHE,
    "past_key_values": _CACHE,
    "output_attentions": ("is what probes are for", _PROBE),
    "output_hidden_states": ("is what probes are for", _PROBE),
    "streamer": ("would write where nobody sees it", "Print in a probe: it is shown as it comes."),
    "custom_generate": (
        "is another program than generate",
        "%%garcon runs your own on the server.",
    ),
    "token_healing": ("reads another prompt than was given", "Heal the prompt before."),
    "synced_gpus": ("is what the server does by itself", "Leave it out."),
}
"""Options that are not taken: why, and what to do instead."""


@dataclass
class Settled:
    """Options as transformers' ``generate`` is given them.

    Attributes:
        options: by name.
        cached: whether keys and values are kept from step to step.
        copies: rows that are read for each prompt: its beams, or its samples.
        ends: criteria that tell by its tokens alone whether a row has ended.
        clocks: criteria that tell it by the time.
        stopping: criteria of the caller's own.
        processors: logits processors of the caller's, in their order.
        allowed: the caller's function that says which tokens may come next.
    """

    options: dict[str, Any]
    cached: bool = True
    copies: int = 1
    ends: list[StoppingCriteria] = field(default_factory=list)
    clocks: list[StoppingCriteria] = field(default_factory=list)
    stopping: list[Any] = field(default_factory=list)
    processors: list[Any] = field(default_factory=list)
    allowed: Any = None

    def new_tokens(self, prompt: int) -> int:
        """How many tokens may come after so many."""
        most = self.options.get("max_new_tokens")
        return int(most) if most is not None else max(0, int(self.options["max_length"]) - prompt)


def settled(model: Any, asked: dict[str, Any], tokenizer: Any, mesh: Mesh) -> Settled:
    """The options of a request, with the checkpoint's settings.

    Args:
        tokenizer: of the model, or None.

    Raises:
        BadRequest: something cannot be had; names it, and whose setting it is.
    """
    _refuse(asked, mesh)
    own = asked.get("generation_config")
    if own is not None and not isinstance(own, GenerationConfig):
        raise BadRequest(
            f"generation_config is a {type(own).__name__}.",
            "Give a GenerationConfig of transformers, or its settings as options.",
        )
    options = {**asked, **_defaults(asked, own)}
    tokenizer = options.pop("tokenizer", None) or tokenizer
    theirs = {
        name: options.pop(name, None) or () for name in ("stopping_criteria", "logits_processor")
    }
    allowed = options.pop("prefix_allowed_tokens_fn", None)
    try:
        found = generation_settings(model, own, _without(options, "generation_config"))
        _check_settings(found, mesh)
        made = Settled(
            options,
            cached=found.use_cache is not False,
            copies=max(1, found.num_beams or 1, found.num_return_sequences or 1),
            processors=_listed(theirs["logits_processor"], "logits_processor"),
            allowed=allowed,
        )
        _endings(made, found, tokenizer, _listed(theirs["stopping_criteria"], "stopping_criteria"))
    except REFUSALS as error:
        raise refusal(model, asked, error) from None
    options |= {
        "max_new_tokens": found.max_new_tokens,
        "max_length": found.max_length if found.max_new_tokens is None else None,
        # Ours are in its place: how they are kept in memory changes no number.
        "cache_implementation": None,
        "return_dict_in_generate": True,
        **{name: bool(_wanted(asked, own, name)) for name in ("output_scores", "output_logits")},
        "output_attentions": False,
        "output_hidden_states": False,
        "stop_strings": None,  # these two are among the criteria
        "max_time": None,
    }
    if found.pad_token_id is None:
        ends = _ids(found.eos_token_id)
        options["pad_token_id"] = ends[0] if ends else 0
    if "assistant_tokenizer" in options:
        options["tokenizer"] = tokenizer
    return made


def _defaults(asked: dict[str, Any], own: Any) -> dict[str, Any]:
    """What is so where the caller says nothing."""
    found: dict[str, Any] = {}
    if _wanted(asked, own, "max_new_tokens") is None:
        longest = _wanted(asked, own, "max_length")
        found["max_new_tokens"] = DEFAULT_NEW_TOKENS if longest is None else None
    if _wanted(asked, own, "do_sample") is None:
        found["do_sample"] = False
    return found


def _wanted(asked: dict[str, Any], own: Any, name: str) -> Any:
    """What the caller says, by an option or in a ``generation_config`` of their own."""
    return asked[name] if asked.get(name) is not None else getattr(own, name, None)


def _without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def _refuse(asked: dict[str, Any], mesh: Mesh) -> None:
    for name in asked.keys() & REFUSED.keys():
        if asked[name] is not None and asked[name] is not False:
            why, instead = REFUSED[name]
            raise BadRequest(f"generate takes no {name}: it {why}.", instead)


def _check_settings(found: Any, mesh: Mesh) -> None:
    """Raises ValueError for what the options and the checkpoint's settings come to, by name."""
    if found.cache_implementation == "quantized":
        raise ValueError(
            "cache_implementation='quantized' rounds keys and values, which changes what the model computes"
        )
    if found.token_healing:
        raise ValueError(f"token_healing {REFUSED['token_healing'][0]}")
    if found.assistant_early_exit is not None and mesh.degrees.pp > 1:
        raise ValueError(
            "assistant_early_exit leaves out layers, which stages of a pipeline wait for"
        )


def _endings(made: Settled, found: Any, tokenizer: Any, stopping: list[Any]) -> None:
    """Sort what can end a row: by its tokens, by the time, by code of the caller's."""
    for criterion in stopping:
        if isinstance(criterion, (EosTokenCriteria, MaxLengthCriteria, StopStringCriteria)):
            made.ends.append(criterion)
        elif isinstance(criterion, MaxTimeCriteria):
            made.clocks.append(criterion)
        else:
            made.stopping.append(criterion)
    if found.max_time is not None:
        made.clocks.append(MaxTimeCriteria(found.max_time))
    if found.stop_strings is not None:
        if tokenizer is None:
            raise ValueError("stop_strings need a tokenizer, and the model came without one")
        made.ends.append(StopStringCriteria(tokenizer, found.stop_strings))
    ends = _ids(found.eos_token_id)
    if ends and not any(isinstance(end, EosTokenCriteria) for end in made.ends):
        made.ends.append(EosTokenCriteria(torch.tensor(ends)))


def _ids(ends: Any) -> list[int]:
    """The tokens that end a text, which may be none, one or several."""
    if ends is None:
        return []
    ends = ends.tolist() if isinstance(ends, torch.Tensor) else ends
    return [int(ends)] if isinstance(ends, int) else [int(end) for end in ends]


def _listed(given: Any, name: str) -> list[Any]:
    if not isinstance(given, Sequence):
        raise ValueError(f"{name} is a {type(given).__name__}, not a list")
    return list(given)


# -- what cannot be had --------------------------------------------------------------------------

REFUSALS = (
    ValueError,
    TypeError,
    ArithmeticError,
    AttributeError,
    LookupError,
    ImportError,
    OSError,
)
"""What transformers raises where options do not go together, before it reads anything."""

_NO_SETTINGS = (
    *("transformers_version", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache"),
    "do_sample",  # which is nobody's but the caller's
)


def refusal(model: Any, asked: dict[str, Any], error: Exception) -> BadRequest:
    """The error for options that transformers refuses: whose they are, the caller's or the checkpoint's."""
    kind = "" if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: "
    problem = f"generate cannot work with these options: {kind}{str(error).rstrip('.')}."
    config = model.generation_config
    settings = {
        name: value
        for name, value in config.to_diff_dict().items()
        if value and asked.get(name) is None and name not in _NO_SETTINGS and name[0] != "_"
    }
    named = {name: value for name, value in settings.items() if name in str(error)}
    if asked and not named:  # whoever gave options is most likely who can change them
        given = ", ".join(f"{name}={value!r:.60}" for name, value in asked.items())
        if "trust_remote_code" in str(error):
            problem = "generate cannot work with these options: transformers keeps what they ask for as code on the hub, which is never run here."
        return BadRequest(problem, f"They are those of transformers' generate; given: {given}.")
    if not settings:
        return BadRequest(problem, "The options are those of transformers' generate.")
    file = (
        "config.json" if getattr(config, "_from_model_config", False) else "generation_config.json"
    )
    said = ", ".join(f"{name}={value!r}" for name, value in (named or settings).items())
    return BadRequest(
        f"{problem} The checkpoint's {file} says {said}.",
        f"An option of that name goes before it: {next(iter(named or settings))}=….",
    )
