"""Modules of the user's own travel, as they are loaded in the notebook, and nobody else sees them."""

from __future__ import annotations

import importlib
import math
import pickle
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.execution.stateless import is_stateless
from garcon_jupyter import MissingModule, RemoteModel, recorders
from garcon_jupyter.client import shipping
from garcon_jupyter.user_code import own_modules, pickling
from tests.oracle import PROMPT

OUT = "layers.2.mlp.out"

Project = Callable[..., ModuleType]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Writes files beside the notebook, and imports the first of them."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # edits within a second are seen

    def write(files: dict[str, str]) -> ModuleType:
        for name, source in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        importlib.invalidate_caches()
        first = next(iter(files)).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return importlib.import_module(first)

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def saved_by(rmodel: RemoteModel, probe: Any) -> Any:
    """What a probe saved as `x`, in one request."""
    rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(probe)], logits="none")
    return rmodel.recordings()[OUT].x


# -- what travels ---------------------------------------------------------------------------------


def test_a_module_beside_the_notebook_travels(either: RemoteModel, project: Project) -> None:
    helpers = project({"my_tools.py": "OFFSET = 5\ndef shifted(x):\n    return x + OFFSET\n"})

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = helpers.shifted(tensor) - tensor

    assert torch.allclose(saved_by(either, probe), torch.tensor(5.0), atol=1e-5)


def test_it_travels_as_it_is_loaded_now(rmodel: RemoteModel, project: Project) -> None:
    source = "OFFSET = {}\ndef value():\n    return OFFSET\n"
    helpers = project({"my_tools.py": source.format(1)})

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = helpers.value()

    assert saved_by(rmodel, probe) == 1
    project({"my_tools.py": source.format(22)})  # edited, and not loaded: as the notebook has it
    assert helpers.value() == saved_by(rmodel, probe) == 1
    importlib.reload(helpers)
    assert helpers.value() == saved_by(rmodel, probe) == 22
    helpers.OFFSET = 333  # set from the notebook
    assert saved_by(rmodel, probe) == 333


def test_the_servers_own_older_copy_is_not_taken(
    llama_server: garcon.Server, rmodel: RemoteModel, project: Project, tmp_path: Path
) -> None:
    helpers = project({"my_tools.py": "def value():\n    return 'old'\n"})

    def load_it_there(save_ctx: Any, tensor: Tensor, place: str = str(tmp_path)) -> None:
        import importlib
        import sys

        sys.path.insert(0, place)
        sys.modules.pop("my_tools", None)
        save_ctx.x = importlib.import_module("my_tools").value()

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        import my_tools

        save_ctx.x = helpers.value(), my_tools.value()

    def forget_it_there(save_ctx: Any, tensor: Tensor) -> None:
        import sys

        save_ctx.x = sys.modules.pop("my_tools").value()

    assert saved_by(rmodel, load_it_there) == "old"
    # Of another length: by that, and the second, Python tells whether what it compiled is of this source.
    project({"my_tools.py": "def value():\n    return 'new'  # since\n"})
    importlib.reload(helpers)
    assert saved_by(rmodel, probe) == ("new", "new")
    assert saved_by(rmodel, forget_it_there) == "old"  # nor is the server's own replaced


def test_two_sessions_have_two_versions_at_once(
    llama_server: garcon.Server, project: Project
) -> None:
    source = "class Kind:\n    number = {0}\ndef value():\n    return {0}, Kind.number\n"
    helpers = project({"my_tools.py": source.format(1)})
    models = [garcon.connect(llama_server.name, session=f"version-{n}") for n in (1, 2)]
    try:
        probes = []
        for number in (1, 2):
            project({"my_tools.py": source.format(number)})
            importlib.reload(helpers)

            def probe(save_ctx: Any, tensor: Tensor) -> None:
                save_ctx.x = helpers.value()

            probes.append(models[0].probe_points[OUT].probe(probe))
        for _ in range(2):
            for number, model in enumerate(models, start=1):
                model.forward(PROMPT, probes=[probes[number - 1]], logits="none")
                assert model.recordings()[OUT].x == (number, number)
    finally:
        for model in models:
            model.close()


PACKAGE = {
    "my_package/__init__.py": "from .kinds import Kind\nfrom . import kinds\n",
    "my_package/kinds.py": (
        "from .deep import tools\n"
        "class Kind:\n    def __init__(self, n): self.n = n\n"
        "    def doubled(self):\n        from ..my_package.deep.tools import double\n"
        "        return double(self.n)\n"
    ),
    "my_package/deep/__init__.py": "",
    "my_package/deep/tools.py": (
        "import my_package\nSEEN = []\n"
        "def double(x):\n    from . import late\n    SEEN.append(x)\n    return x * late.TWO\n"
        "def made(n):\n    return my_package.Kind(n)\n"
    ),
    "my_package/deep/late.py": "TWO = 2\n",
}
PACKAGE["my_package/kinds.py"] = PACKAGE["my_package/kinds.py"].replace("..my_package", ".")
PACKAGE["my_package/kinds.py"] = PACKAGE["my_package/kinds.py"].replace("..deep", ".deep")


def test_packages_with_circular_relative_and_late_imports(
    rmodel: RemoteModel, project: Project
) -> None:
    package = project(PACKAGE)

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        import my_package.deep.tools as tools

        made = tools.made(4)
        save_ctx.x = made.doubled(), isinstance(made, package.Kind), tools.SEEN, made

    for _ in range(2):  # and what a module gathers begins anew in each request
        doubled, same, seen, made = saved_by(rmodel, probe)
        assert (doubled, same, seen) == (8, True, [4])
    assert type(made) is package.Kind and made.doubled() == 8


def test_a_module_that_only_the_probe_imports_travels(
    rmodel: RemoteModel, project: Project, tmp_path: Path
) -> None:
    project({"my_tools.py": "", "my_late.py": "import math\ndef value():\n    return math.tau\n"})
    assert "my_late" not in sys.modules

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        def inner() -> float:
            from my_late import value

            return value()

        save_ctx.x = inner()

    assert saved_by(rmodel, probe) == math.tau


def test_functions_and_their_module_share_what_they_change(
    rmodel: RemoteModel, project: Project
) -> None:
    helpers = project(
        {
            "my_tools.py": "from functools import lru_cache\nCOUNT = 0\nFACTOR = 3\n"
            "def count():\n    global COUNT\n    COUNT += 1\n"
            "@lru_cache(maxsize=4)\ndef slowly(n):\n    return n * FACTOR\n"
        }
    )
    count = helpers.count

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        count()
        helpers.count()
        helpers.FACTOR = 10
        save_ctx.x = helpers.COUNT, helpers.slowly(2), getattr(helpers, "COUNT")  # noqa: B009

    assert saved_by(rmodel, probe) == (2, 20, 2)
    assert saved_by(rmodel, probe) == (2, 20, 2)
    assert (helpers.COUNT, helpers.FACTOR) == (0, 3)


# -- classes --------------------------------------------------------------------------------------

KINDS = """
import dataclasses, enum
from typing import NamedTuple
FACTOR = 2
class Wrong(ValueError):
    def __init__(self, what, number):
        super().__init__(f"{what}: {number}")
        self.number = number
def fail():
    raise Wrong("too large", 7)
@dataclasses.dataclass
class Total:
    value: float = 0.0
    def add(self, x):
        self.value += x * FACTOR
        return self
class Colour(enum.Enum):
    RED = 1
class Pair(NamedTuple):
    one: int
    other: int
"""


def test_what_is_of_a_users_class_comes_back_as_that(either: RemoteModel, project: Project) -> None:
    kinds = project({"my_kinds.py": KINDS})

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = kinds.Total(1.5), kinds.Colour.RED, kinds.Pair(1, 2)

    add = kinds.Total.add
    total, colour, pair = saved_by(either, probe)
    assert type(total) is kinds.Total and total == kinds.Total(1.5)
    assert colour is kinds.Colour.RED and type(pair) is kinds.Pair
    assert kinds.Total.add is add  # the class here is as it was


def test_a_class_is_the_same_from_request_to_request_and_probe_to_probe(
    rmodel: RemoteModel, project: Project
) -> None:
    kinds = project({"my_kinds.py": KINDS})

    def first(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = kinds.Total()

    def later(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.y = isinstance(save_ctx.x, kinds.Total), save_ctx.x.add(1.0).value

    point = rmodel.probe_points[OUT]
    rmodel.forward(PROMPT, probes=[point.probe(first), point.probe(later)], logits="none")
    assert rmodel.recordings()[OUT].y == (True, 2.0)
    kinds.FACTOR = 10  # and its methods see what the notebook has now
    rmodel.forward(PROMPT, probes=[point.probe(later)], logits="none")
    assert rmodel.recordings()[OUT].y == (True, 12.0)


def test_an_exception_of_a_users_module_is_caught_as_that(
    either: RemoteModel, project: Project
) -> None:
    kinds = project({"my_kinds.py": KINDS})

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        kinds.fail()

    with pytest.raises(kinds.Wrong, match="too large: 7") as caught:
        saved_by(either, probe)
    assert caught.value.number == 7


def test_a_new_kernel_gets_its_own_class_back(rmodel: RemoteModel, project: Project) -> None:
    kinds = project({"my_kinds.py": KINDS})

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = kinds.Total(4.0)

    rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(probe)], logits="none")
    handle = rmodel.recordings(fetch=False)[OUT].x
    importlib.reload(kinds)  # a kernel that is started anew has other class objects
    cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()
    assert type(handle.fetch()) is kinds.Total


RECORDER = """
from dataclasses import dataclass, field
import torch
from garcon_jupyter.recorders import Recorder, State
@dataclass(repr=False)
class SumState(State):
    total: torch.Tensor = field(default_factory=lambda: torch.empty(0))
class Sum(Recorder):
    name, state = "sum", SumState
    def update(self, state, seen):
        fresh = SumState(seen.start, len(seen.values), seen.values.double().sum(0))
        return fresh if state is None else self.add(state, fresh)
    def add(self, one, other):
        one.total = one.total + other.total
        one.tokens_seen += other.tokens_seen
        return one
"""


def test_a_recorder_of_a_users_module_in_a_run_with_checkpoints(
    rmodel_tp2: RemoteModel, project: Project, tmp_path: Path
) -> None:
    mine = project({"my_recorder.py": RECORDER})
    point = rmodel_tp2.probe_points["layers.1.mlp.post_activation"]
    probes = [point.probe(mine.Sum()), point.probe(recorders.Moments())]
    where = tmp_path / "checkpoints"
    rmodel_tp2.run(["the cat sat", "a dog"] * 3, probes, checkpoint=where, every=0, show=False)
    found = rmodel_tp2.recordings()[point.name]
    assert type(found.sum) is mine.SumState and found.sum.tokens_seen > 0
    wanted = found.moments.mean * found.moments.tokens_seen
    assert torch.allclose(found.sum.total, wanted, atol=1e-6)
    assert any(where.iterdir())


def test_functions_beside_probes_travel_so_too(rmodel: RemoteModel, project: Project) -> None:
    helpers = project(
        {"my_tools.py": "def loss(logits):\n    return logits[0, -1].square().sum()\n"}
    )
    wanted = rmodel.forward(PROMPT)[0, -1].square().sum()
    reduced = rmodel.forward(PROMPT, logits=lambda logits: helpers.loss(logits))
    assert torch.allclose(reduced, wanted)
    assert float(rmodel.backward(PROMPT, helpers.loss)) == pytest.approx(float(wanted))


# -- what cannot ----------------------------------------------------------------------------------

HOLDS_A_LOCK = (
    "import threading\nLOCK = threading.Lock()\ndef free(x):\n    return x\n"
    "def locked(x):\n    with LOCK:\n        return x\n"
)


def test_what_is_not_used_of_a_module_needs_not_travel(
    rmodel: RemoteModel, project: Project
) -> None:
    helpers = project({"my_tools.py": HOLDS_A_LOCK + "BIG = list(range(10**6))\n"})

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = helpers.free(3)

    assert saved_by(rmodel, probe) == 3
    assert len(shipping.pack(probe).payload) < 5_000


def test_what_is_used_and_cannot_is_named_before_anything_runs(
    rmodel: RemoteModel, project: Project
) -> None:
    helpers = project({"my_tools.py": HOLDS_A_LOCK})

    def before(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.ran = True

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = helpers.locked(3)

    point = rmodel.probe_points[OUT]
    with pytest.raises(MissingModule, match=r"my_tools\.LOCK, a lock, cannot .* cannot import"):
        rmodel.forward(PROMPT, probes=[point.probe(before), point.probe(probe, name="b")])
    assert list(rmodel.recordings()) == []


def test_then_the_servers_own_is_taken_if_it_is_the_same(
    rmodel: RemoteModel, project: Project, tmp_path: Path
) -> None:
    helpers = project({"my_tools.py": HOLDS_A_LOCK})

    def can_import(save_ctx: Any, tensor: Tensor, place: str = str(tmp_path)) -> None:
        import importlib
        import sys

        sys.path.insert(0, place)
        sys.modules.pop("my_tools", None)
        save_ctx.x = importlib.import_module("my_tools").free(1)

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = helpers.locked(3)

    def forget(save_ctx: Any, tensor: Tensor) -> None:
        import sys

        save_ctx.x = sys.modules.pop("my_tools") is not None

    assert saved_by(rmodel, can_import) == 1
    assert saved_by(rmodel, probe) == 3
    project({"my_tools.py": HOLDS_A_LOCK.replace("return x", "return -x")})
    importlib.reload(helpers)
    with pytest.raises(MissingModule, match=r"my_tools\.LOCK, .* another version of my_tools"):
        saved_by(rmodel, probe)
    assert saved_by(rmodel, forget)


def test_a_module_taken_whole_leaves_out_what_cannot(rmodel: RemoteModel, project: Project) -> None:
    helpers = project({"my_tools.py": HOLDS_A_LOCK})

    def by_name(save_ctx: Any, tensor: Tensor, name: str = "free") -> None:
        save_ctx.x = getattr(helpers, name)(3)

    assert saved_by(rmodel, by_name) == 3

    def needs_it(save_ctx: Any, tensor: Tensor, name: str = "locked") -> None:
        save_ctx.x = getattr(helpers, name)(3)

    with pytest.raises(TypeError, match=r"my_tools\.LOCK, a lock, cannot travel"):
        saved_by(rmodel, needs_it)


# -- how much it costs ----------------------------------------------------------------------------


def test_a_large_module_does_not_slow_each_request(rmodel: RemoteModel, project: Project) -> None:
    body = "\n".join(f"def f{n}(x):\n    return f{n - 1}(x) if x > 1 else x" for n in range(1, 400))
    large = project({"my_large.py": f"def f0(x):\n    return x\n{body}\n"})
    all_of_it = large.f399

    def uses(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = all_of_it(1)

    def uses_none(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = 1

    point = rmodel.probe_points[OUT]
    probes = [[point.probe(function)] for function in (uses, uses_none)]
    best = [math.inf, math.inf]
    for _ in range(40):
        for number, side in enumerate(probes):
            start = time.perf_counter()
            rmodel.forward(PROMPT, probes=side, logits="none")
            best[number] = min(best[number], time.perf_counter() - start)
    assert best[0] < 2 * best[1] + 5e-3  # taking it apart anew takes ten times as much


def arrived(function: Any) -> Any:
    """A function as it is on the server."""
    import pickle

    return pickle.loads(pickling.dumps(function))


def test_guests_that_hold_nothing_that_changes_are_stateless(project: Project) -> None:
    helpers = project(
        {
            "my_tools.py": "import math\nN = 3\nBOX = [0]\ndef plain(x):\n    return math.pi * N\n"
            "def counts():\n    BOX[0] += 1\ndef mutual(x):\n    return other(x)\n"
            "def other(x):\n    return mutual(x)\n"
        }
    )

    def sets() -> None:
        helpers.N = 4

    def imports() -> None:
        import my_tools

        my_tools.N = 4

    assert is_stateless(arrived(lambda: helpers.plain(1)))
    assert is_stateless(arrived(lambda: helpers.mutual(1)))
    for function in (lambda: helpers.counts(), sets, imports):
        assert not is_stateless(arrived(function))


def test_equal_code_has_equal_digests(project: Project) -> None:
    helpers = project({"my_tools.py": "class Kind: pass\ndef value():\n    return Kind()\n"})

    def probe(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.x = helpers.value()

    one = shipping.pack(probe).digest
    helpers.extra = 1  # which it does not use
    assert shipping.pack(probe).digest == one
    helpers.Kind.extra = 1  # which it does
    assert shipping.pack(probe).digest != one


def test_code_with_many_names_is_read_as_well(project: Project) -> None:
    project({"my_tools.py": "VALUE = 7\ndef value():\n    return VALUE\n"})
    many = "\n".join(f"    x{n} = {n}.5; y.a{n}" for n in range(300))
    source = f"def long(y):\n{many}\n    import my_tools as t\n    return t.value() + x7\n"
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(source, names)
    sent = pickling.dumps(names["long"])
    del sys.modules["my_tools"]

    class Any300:
        def __getattr__(self, name: str) -> None: ...

    import pickle

    assert pickle.loads(sent)(Any300()) == 14.5
    assert "my_tools" not in sys.modules


# -- whose a module is ----------------------------------------------------------------------------


def module_at(name: str, file: Path | str, package: bool = False) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(file)
    if package:
        module.__path__ = [str(Path(file).parent)]
    return module


def test_which_modules_are_the_users_own(tmp_path: Path) -> None:
    stdlib, site = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
    own = [
        module_at("helpers", tmp_path / "helpers.py"),
        module_at("mypkg", tmp_path / "src/mypkg/__init__.py", package=True),
        module_at("mypkg.sub.mod", tmp_path / "src/mypkg/sub/mod.py"),
        module_at("notebooks", "/usr/src/app/notebooks.py"),
    ]
    others = [
        math,
        torch,
        pytest,
        module_at("json.more", stdlib / "json/more.py"),
        module_at("lib", site / "lib/__init__.py", package=True),
        module_at("lib", "/usr/lib/python3/dist-packages/lib.py"),
        module_at("garcon_jupyter.client.probes", tmp_path / "garcon_jupyter/client/probes.py"),
        module_at("torch.nn", tmp_path / "pytorch/torch/nn/__init__.py", package=True),
        ModuleType("made_at_run_time"),
        "helpers",
        None,
    ]
    assert [own_modules.own(module) for module in own] == own
    assert not any(own_modules.own(module) for module in others)
    fast = module_at("fast", tmp_path / f"fast{sysconfig.get_config_var('EXT_SUFFIX')}")
    assert own_modules.compiled(fast) is fast and own_modules.own(fast) is None


def test_a_package_without_a_file_is_own_where_its_folders_are(tmp_path: Path) -> None:
    module = ModuleType("spread")
    module.__path__ = [str(tmp_path / "spread")]
    assert own_modules.own(module) is module
    module.__path__.append(f"{sysconfig.get_path('purelib')}/spread")
    assert own_modules.own(module) is None


def test_what_pip_put_into_a_folder_is_installed(tmp_path: Path) -> None:
    record = tmp_path / "lib-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("lib/__init__.py,sha256=x,1\nalone.py,sha256=x,1\n")
    assert own_modules.own(module_at("lib.deep", tmp_path / "lib/deep.py")) is None
    assert own_modules.own(module_at("alone", tmp_path / "alone.py")) is None
    assert own_modules.own(module_at("mine", tmp_path / "mine.py")) is not None


def test_other_libraries_pickle_as_ever(project: Project) -> None:
    helpers = project({"my_tools.py": "def value():\n    return 1\n"})
    before = cloudpickle.dumps(helpers.value)
    done = threading.Event()
    found: list[bytes] = []

    def other() -> None:
        while not done.is_set():
            found.append(cloudpickle.dumps(helpers.value))

    thread = threading.Thread(target=other)
    thread.start()
    for _ in range(50):
        shipping.pack(lambda save_ctx, tensor: helpers.value())
    done.set()
    thread.join()
    assert found and set(found) == {before}


def test_the_package_itself_goes_by_name() -> None:
    """It is a module of a class of its own, which no pickler knows."""

    def uses() -> Any:
        return garcon.Tokens

    for payload in (
        cloudpickle.dumps(uses),
        cloudpickle.dumps(garcon),
        shipping.pack(uses, "function").payload,
    ):
        assert b"garcon_jupyter" in payload and len(payload) < 3000
    assert pickle.loads(cloudpickle.dumps(garcon)) is garcon
    assert pickle.loads(shipping.pack(uses, "function").payload)() is garcon.Tokens
