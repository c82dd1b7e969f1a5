"""The grammar of addresses, patterns, and what a catalog refuses and why."""

from __future__ import annotations

import re

import pytest

from garcon_jupyter import points
from garcon_jupyter.client.probes import ProbePoints
from garcon_jupyter.display import listings
from garcon_jupyter.errors import PointUnavailable, UnknownParameter, UnknownPoint
from garcon_jupyter.points import PARAMETERS, POINTS, Catalog

OF_EXPERTS = {
    spec.template for spec in POINTS if "router" in spec.template or "{e}" in spec.template
}

CATALOG = Catalog(
    sizes={"D": 48, "H": 6, "K": 2, "d": 16, "M": 80, "V": 263, "P": 128},
    n_layers=12,
    layers={
        spec.template: tuple(range(0, 12, 2) if spec.template.endswith("mlp.out") else range(12))
        for spec in POINTS
        if "{i}" in spec.template and spec.template not in OF_EXPERTS
    },
    refused=dict.fromkeys(OF_EXPERTS, "its MLP has no experts"),
    modules=("model", "model.layers.0.mlp", "model.layers.0.mlp.act_fn"),
    parameters=("embed.weight", "layers.0.mlp.up_proj", "layers.0.attn.q_proj.bias"),
)


@pytest.mark.parametrize("spec", POINTS, ids=lambda spec: spec.template)
def test_every_row_of_the_table_parses_to_itself(spec: points.PointSpec) -> None:
    address = points.parse_point(points.fill(spec.template, 10, 3))
    assert address is not None
    assert address.spec is spec
    assert address.layer == (10 if "{i}" in spec.template else None)
    assert address.expert == (3 if "{e}" in spec.template else None)


@pytest.mark.parametrize("spec", POINTS, ids=lambda spec: spec.template)
def test_every_split_is_a_dimension_of_the_shape(spec: points.PointSpec) -> None:
    assert not spec.split or spec.dims.count(spec.split) == 1


@pytest.mark.parametrize("spec", PARAMETERS, ids=lambda spec: spec.template)
def test_every_parameter_parses_to_itself(spec: points.ParameterSpec) -> None:
    address = points.parse_parameter(points.fill(spec.template, 2, 1))
    assert address is not None and address.spec is spec


def test_a_projection_may_be_called_weight() -> None:
    assert points.parse_parameter("layers.0.mlp.up_proj.weight") is not None
    assert CATALOG.parameter("layers.0.mlp.up_proj.weight").name == "layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "logits.",
        ".logits",
        "layers.4",
        "layers.04.mlp.out",
        "layers.-1.mlp.out",
        "layers.4.mlp.Out",
        "layers.4.mlp.out.extra",
        "xlayers.4.mlp.out",
        "layers.4xmlp.out",
        "module:model.layers.0",
    ],
)
def test_nothing_else_is_an_address(name: str) -> None:
    assert points.parse_point(name) is None


def test_shapes_are_numbers_where_they_are_known() -> None:
    assert CATALOG.shape(CATALOG.point("layers.4.mlp.post_activation")) == ("b", "p", 80)
    assert CATALOG.shape(CATALOG.point("layers.0.attn.k")) == ("b", "p", 2, 16)
    assert CATALOG.shape(CATALOG.point("layers.0.attn.q")) == ("b", "p", 6, 16)
    assert CATALOG.shape(CATALOG.point("final_norm.scale")) == ("b", "p", 1)


def selected(pattern: str) -> list[str]:
    return [address.name for address in CATALOG.select(pattern)]


def test_a_star_selects_every_layer_in_order() -> None:
    names = [f"layers.{n}.mlp.post_activation" for n in range(12)]
    assert selected("layers.*.mlp.post_activation") == names


def test_a_star_skips_layers_that_lack_the_point() -> None:
    assert selected("layers.*.mlp.out") == [f"layers.{n}.mlp.out" for n in range(0, 12, 2)]


def test_ranges_include_both_ends() -> None:
    assert selected("layers.9-11.attn.z") == [f"layers.{n}.attn.z" for n in (9, 10, 11)]


def test_braces_select_numbers_ranges_and_words() -> None:
    assert selected("layers.{1,11}.resid_post") == ["layers.1.resid_post", "layers.11.resid_post"]
    assert selected("layers.{0,3-4}.attn.z") == [f"layers.{n}.attn.z" for n in (0, 3, 4)]
    assert selected("layers.2.attn.{q,k}") == ["layers.2.attn.q", "layers.2.attn.k"]


def test_a_star_does_not_cross_a_dot() -> None:
    assert "layers.3.attn.norm.out" not in selected("layers.3.attn.*")
    assert selected("layers.3.attn.norm.*") == [
        f"layers.3.attn.norm.{part}" for part in ("scale", "normalized", "out")
    ]
    assert selected("layers.1.resid_*") == [
        f"layers.1.resid_{part}" for part in ("pre", "mid", "post")
    ]


def test_a_star_stands_for_a_part_of_a_modules_path() -> None:
    catalog = Catalog(
        sizes={},
        n_layers=0,
        modules=("h", "h.0.mlp", "h.1.mlp", "h.10.mlp", "h.0-1", "h.0.mlp.act", "h.1.attn"),
    )

    def chosen(pattern: str) -> list[str]:
        return [address.name for address in catalog.select(pattern)]

    assert chosen("module:h.*.mlp.output") == [f"module:h.{n}.mlp.output" for n in (0, 1, 10)]
    assert chosen("module:h.0-1.mlp.input") == ["module:h.0.mlp.input", "module:h.1.mlp.input"]
    assert chosen("module:h.1.*.*") == [
        "module:h.1.mlp.input",
        "module:h.1.mlp.output",
        "module:h.1.attn.input",
        "module:h.1.attn.output",
    ]
    assert chosen("module:h.0-1.output") == ["module:h.0-1.output"]  # the module of that name
    with pytest.raises(UnknownPoint, match=r"module 'h.0.mpl'.*h\.0\.mlp"):
        catalog.select("module:h.*.mpl.output")
    with pytest.raises(UnknownPoint, match=r"End it with \.input or \.output"):
        catalog.select("module:h.*.mlp")


def test_a_pattern_that_selects_nothing_says_what_is_wrong() -> None:
    with pytest.raises(UnknownPoint, match=r"out of range: the model has layers 0 to 11"):
        CATALOG.select("layers.20-30.attn.z")
    with pytest.raises(UnknownPoint, match=r"Did you mean"):
        CATALOG.select("layers.*.mlp.post_activations")
    with pytest.raises(PointUnavailable, match="no experts"):
        CATALOG.select("layers.*.mlp.router.logits")


def test_a_wrong_name_comes_with_the_nearest() -> None:
    with pytest.raises(UnknownPoint) as caught:
        CATALOG.point("layers.4.mlp.post_activaton")
    assert caught.value.nearest[0] == "layers.4.mlp.post_activation"
    assert "Did you mean layers.4.mlp.post_activation" in str(caught.value)
    assert isinstance(caught.value, LookupError)


def test_a_layer_out_of_range_names_the_last_one() -> None:
    with pytest.raises(UnknownPoint, match=r"layers 0 to 11.*layers\.11\.mlp\.in"):
        CATALOG.point("layers.12.mlp.in")


def test_a_point_that_this_architecture_lacks_says_why() -> None:
    with pytest.raises(PointUnavailable, match="no experts"):
        CATALOG.point("layers.4.mlp.router.weights")


def test_a_point_that_this_layer_lacks_says_which_have_it() -> None:
    with pytest.raises(PointUnavailable, match=r"Layer 3 has no mlp\.out.*0, 2, 4"):
        CATALOG.point("layers.3.mlp.out")


def test_modules_are_checked_by_path_and_side() -> None:
    assert CATALOG.point("module:model.layers.0.mlp.output").spec is None
    with pytest.raises(UnknownPoint, match=r"End it with \.input or \.output"):
        CATALOG.point("module:model.layers.0.mlp")
    with pytest.raises(UnknownPoint, match=r"Did you mean .*model\.layers\.0\.mlp"):
        CATALOG.point("module:model.layers.0.mpl.output")


def test_an_unknown_parameter_comes_with_the_nearest() -> None:
    with pytest.raises(UnknownParameter, match=r"layers\.0\.mlp\.up_proj"):
        CATALOG.parameter("layers.0.mlp.up_projection")


def test_names_follow_the_forward_pass() -> None:
    names = CATALOG.names()
    assert names[0] == "embed.out" and names[-1] == "logits"
    order = ["layers.0.resid_pre", "layers.0.attn.z", "layers.0.resid_mid", "layers.0.mlp.in"]
    assert [name for name in names if name in order] == order
    assert names.index("layers.0.resid_post") < names.index("layers.1.resid_pre")
    assert len(names) == len(set(names))


# -- a model that no family maps -------------------------------------------------------------------

UNMAPPED = Catalog(
    sizes={"V": 263},
    n_layers=0,
    refused=dict.fromkeys(
        (spec.template for spec in POINTS), "no family file maps this architecture"
    ),
    modules=(
        "",
        *("transformer", "transformer.h", "transformer.h.0", "transformer.h.0.mlp"),
        *("transformer.h.1", "transformer.h.1.mlp", "lm_head"),
    ),
)


@pytest.mark.parametrize("name", ["layers.1.mlp.out", "layers.*.attn.z", "logits", "h.1.mlp"])
def test_a_model_without_points_of_the_table_is_told_how_to_go_on(name: str) -> None:
    with pytest.raises((PointUnavailable, UnknownPoint)) as refused:
        UNMAPPED.select(name)
    said = str(refused.value)
    assert "Probe a module, such as module:transformer.h." in said
    assert "rmodel.modules lists them all." in said
    assert "layers 0 to -1" not in said


def test_its_lists_show_modules_and_no_layers() -> None:
    assert not UNMAPPED.mapped and CATALOG.mapped
    assert UNMAPPED.a_module() == "module:transformer.h.0.output"
    listed = listings.points(UNMAPPED)
    assert re.search(r"^module:transformer\.h\.\*\.mlp\.output +0-1$", listed, re.MULTILINE)
    assert "module:lm_head.output" in listed
    shown = repr(ProbePoints(UNMAPPED))
    assert "7 modules, such as 'module:transformer.h.0.output'" in shown and "0 layers" not in shown
