"""A form as one line of text, which says what was read."""

from __future__ import annotations

from garcon_jupyter.dictionaries.form import STANDARD_EPS, Form, InputNorm


def formula(form: Form, d_in: int | str) -> str:
    """What a dictionary computes, such as ``f = relu(pre), pre = (x - b_dec) W_enc + b_enc;  y = f W_dec + b_dec``.

    ``[ ]`` is 1 where what is in it holds, and 0 elsewhere.

    Args:
        form: of the dictionary.
        d_in: numbers that it reads of a token, or a letter for them.
    """
    if form.kind == "context":
        return _in_context(form, d_in)
    if form.kind == "pursuit":
        return _pursuit(form, d_in)
    return f"f = {_latents(form)}, pre = {_pre(form, d_in)};  y = {_output(form, d_in)}"


def _read(norm: InputNorm, d_in: int | str, x: str) -> str:
    match norm.kind:
        case "scale":
            return f"{x}·{_number(norm)}"
        case "length":
            return f"{x}·√{d_in}/|{x}|"
        case "standard":
            return f"({x} - mean)/(std + {STANDARD_EPS:g})"
    return x


def _number(norm: InputNorm) -> str:
    """The factor of a norm, or its name where each point has its own."""
    return f"{norm.scale[0]:.6g}" if len(norm.scale) == 1 else "s_i"


def _z(form: Form, d_in: int | str) -> str:
    read = _read(form.norm_in, d_in, "x_i" if form.kind in ("crosscoder", "cross-layer") else "x")
    if form.subtracts_bias:
        return f"({read} - b_dec)"
    return f"({read})" if " " in read else read


def _pre(form: Form, d_in: int | str) -> str:
    z = _z(form, d_in)
    if form.gated:
        return f"e^r·({z} W_enc) + b_mag"
    pre = f"{z} W_enc + b_enc"
    if form.kind == "crosscoder":
        pre = f"Σ_i ({z} W_enc_i + b_enc_i)"
    if form.kind == "cross-layer":
        pre = f"{z} W_enc_i + b_enc_i"
    return f"({pre})·sigmoid({z} W_glu + b_glu)" if form.glu else pre


def _latents(form: Form) -> str:
    activation = form.activation
    compared = "pre·‖W_dec‖" if form.decoder_norms else "pre"
    value = compared if form.decoder_norms == "latents" else "pre"
    value = f"relu({value})" if activation.rectified else value
    if form.gated:
        return f"{value}·[e^-r·(pre - b_mag) + b_gate > 0]"
    match activation.kind:
        case "relu":
            return value
        case "jumprelu":
            return f"{value}·[{compared} > θ]"
        case "topk":
            of = " of all layers" if activation.joint else ""
            return f"{value}·[{compared} is of the {activation.k} largest{of}]"
        case "abstopk":
            return f"{value}·[|{compared}| is of the {activation.k} largest]"
        case "groupmax":
            return f"{value}·[{compared} is the largest of its group, of {activation.k}]"


def _output(form: Form, d_in: int | str) -> str:
    latents = "f/‖W_dec‖" if form.decoder_norms == "latents" else "f"
    y = f"{latents} W_dec"
    if form.kind == "crosscoder":
        y = "f_i W_dec_i"
    if form.kind == "cross-layer":
        y = "Σ_{j≤i} f_j W_dec_{j→i}"
    y += " + b_dec" * form.output_bias
    return _back(form.norm_out, y, d_in) + (" + x W_skip" if form.skip else "")


def _back(norm: InputNorm, y: str, d_in: int | str) -> str:
    match norm.kind:
        case "scale":
            return f"({y})/{_number(norm)}"
        case "length":
            return f"({y})·|x|/√{d_in}"
        case "standard":
            return f"({y})·std + mean"
    return y


def _in_context(form: Form, d_in: int | str) -> str:
    largest = (
        f"·[pre is of the {form.activation.k} largest]" if form.activation.kind == "topk" else ""
    )
    encoder = "W_decᵀ" if form.tied else "W_enc"
    y = "(f + g) W_dec" + " + b_dec" * form.output_bias
    return (
        f"f = relu(pre){largest}, pre = ({_z(form, d_in)} - g W_dec) {encoder}/(4·{d_in}), "
        f"g predicted from earlier tokens by attention;  y = {_back(form.norm_out, y, d_in)}"
    )


def _pursuit(form: Form, d_in: int | str) -> str:
    steps = int(form.options["steps"])
    y = "f W_dec" + " + b_dec" * form.output_bias
    return (
        f"f = up to {steps} steps of matching pursuit of {_z(form, d_in)} over the rows of W_dec;  "
        f"y = {_back(form.norm_out, y, d_in)}"
    )
