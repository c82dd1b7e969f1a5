"""A form as one line of text, which says what was read."""

from __future__ import annotations

from garcon_jupyter.dictionaries.form import STANDARD_EPS, Activation, Form, InputNorm


def formula(form: Form, d_in: int | str) -> str:
    """What a dictionary computes, such as ``f = relu((x - b_dec) W_enc + b_enc);  y = f W_dec + b_dec``.

    Args:
        form: of the dictionary.
        d_in: numbers that it reads of a token, or a letter for them.
    """
    if form.kind == "context":
        return _in_context(form, d_in)
    if form.kind == "pursuit":
        return _pursuit(form, d_in)
    return f"f = {_latents(form, d_in)};  y = {_output(form)}"


def _read(norm: InputNorm, d_in: int | str) -> str:
    match norm.kind:
        case "scale":
            numbers = {f"{scale:.6g}" for scale in norm.scale}
            return f"x·{numbers.pop()}" if len(numbers) == 1 else "x_i·s_i"
        case "length":
            return f"x·√{d_in}/|x|"
        case "standard":
            return f"(x - mean)/(std + {STANDARD_EPS:g})"
    return "x"


def _z(form: Form, d_in: int | str) -> str:
    read = _read(form.norm_in, d_in)
    return f"({read} - b_dec)" if form.subtracts_bias else f"({read})" if " " in read else read


def _latents(form: Form, d_in: int | str) -> str:
    z = _z(form, d_in)
    if form.gated:
        return f"relu(e^r·({z} W_enc) + b_mag) where {z} W_enc + b_gate > 0"
    pre = f"{z} W_enc + b_enc"
    if form.kind == "crosscoder":
        pre = f"Σ_i ({z} W_enc_i + b_enc_i)"
    if form.kind == "cross-layer":
        pre = f"{z}_i W_enc_i + b_enc_i"
    if form.glu:
        pre = f"({pre})·sigmoid({z} W_glu + b_glu)"
    if not form.decoder_norms:
        return _passed(form.activation, pre)
    norms = "‖W_dec‖"
    passed = _passed(form.activation, f"({pre})·{norms}")
    return passed if form.decoder_norms == "latents" else f"{passed}/{norms}"


def _passed(activation: Activation, pre: str) -> str:
    match activation.kind:
        case "relu":
            return f"relu({pre})"
        case "jumprelu":
            kept = f"relu({pre})" if activation.rectified else f"({pre})"
            return f"{kept} where it is > θ"
        case "topk":
            of = ", of all layers" if activation.joint else ""
            largest = f"{activation.k} largest{of} of {pre}"
            return f"relu({largest})" if activation.rectified else largest
        case "abstopk":
            return f"{activation.k} of largest magnitude of {pre}"
        case "groupmax":
            return f"relu(largest of each of {activation.k} groups of {pre})"


def _output(form: Form) -> str:
    latents = "f/‖W_dec‖" if form.decoder_norms == "latents" else "f"
    y = f"{latents} W_dec"
    if form.kind == "crosscoder":
        y = "f_i W_dec_i"
    if form.kind == "cross-layer":
        y = "Σ_{j≤i} f_j W_dec_{j→i}"
    y += " + b_dec" * form.output_bias
    back = _back(form.norm_out, y)
    return back + (" + x W_skip" if form.skip else "")


def _back(norm: InputNorm, y: str) -> str:
    match norm.kind:
        case "scale":
            numbers = {f"{scale:.6g}" for scale in norm.scale}
            return f"({y})/{numbers.pop()}" if len(numbers) == 1 else f"({y})/s_i"
        case "length":
            return f"({y})·|x|/√D"
        case "standard":
            return f"({y})·std + mean"
    return y


def _in_context(form: Form, d_in: int | str) -> str:
    chosen = f"{form.activation.k} largest of " if form.activation.kind == "topk" else ""
    encoder = "W_decᵀ" if form.tied else "W_enc"
    y = "(f + predicted) W_dec" + " + b_dec" * form.output_bias
    return (
        f"f = relu({chosen}(z - predicted W_dec)/(4·{d_in}) {encoder}), z = {_z(form, d_in)}, predicted from earlier tokens by "
        f"attention;  y = {_back(form.norm_out, y)}"
    )


def _pursuit(form: Form, d_in: int | str) -> str:
    steps = int(form.options["steps"])
    return (
        f"f = up to {steps} steps of matching pursuit of {_z(form, d_in)} over the rows of W_dec;  "
        f"y = {_back(form.norm_out, 'f W_dec' + ' + b_dec' * form.output_bias)}"
    )
