"""From torch to the graph and its derivatives, without Julia: numbers, structure, and refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from lowering_cases import CASES, GROUPS, Case
from lowering_numpy import run
from lowering_reference import expected, inputs

import hybridsam_bridge as hsb
from hybridsam_bridge.fields.plan import ParameterSpec, TorchPart
from hybridsam_bridge.lowering import derive
from hybridsam_bridge.lowering.derive import functions
from hybridsam_bridge.lowering.program import lower
from hybridsam_bridge.lowering.trace import trace


def sizes(case: Case, part: TorchPart) -> dict[str, int]:
    p = sum(spec.size for spec in part.parameters)
    return {
        **dict.fromkeys(("du", "gu", "dT", "jd"), case.n),
        "J": case.n**2,
        "gc": case.nc,
        "gp": p,
        "gt": 1,
    }


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_graph_agrees_with_torch(case: Case) -> None:
    # 1e-12 of the larger of 1 and the value: a few hundred operations in float64, in another order.
    part = case.part()
    values = inputs(case)
    wanted = expected(part, values)
    traced = trace(part, case.n, case.nc)
    for function in functions(traced, part):
        got = run(traced.graph, function, values, sizes(case, part))
        for name, value in wanted[function.name].items():
            np.testing.assert_allclose(got[name], value, rtol=1e-12, atol=1e-12, err_msg=f"{function.name} {name}")


@pytest.mark.parametrize("case", GROUPS["composites"], ids=lambda c: c.name)
def test_jacobian_by_columns_agrees(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    # The path of large systems, forced on small ones; the tolerance as above.
    monkeypatch.setattr(derive, "MAX_BATCHED", 0)
    part, values = case.part(), inputs(case)
    traced = trace(part, case.n, case.nc)
    function = next(f for f in functions(traced, part) if f.name == "jac!")
    assert function.columns == case.n
    got = run(traced.graph, function, values, sizes(case, part))["J"]
    np.testing.assert_allclose(got, expected(part, values)["jac!"]["J"], rtol=1e-12, atol=1e-12)


def plan_part(field: hsb.VectorField, context_shape: tuple[int, ...] | None = None) -> TorchPart:
    plan, _ = field.plan(context_shape)
    part = plan.parts[0]
    assert isinstance(part, TorchPart)
    return part


class Scaled(hsb.VectorField):
    state_shape = (3,)

    def __init__(self, scale: float = 2.0, hidden: int = 20):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 3)).double()
        self.register_buffer("scale", torch.full((3,), scale, dtype=torch.float64))

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return self.net(y) * self.scale - y


def test_key_depends_on_structure_not_on_values() -> None:
    programs = [lower(plan_part(Scaled()), 3, 0) for _ in range(2)]
    assert programs[0].key == programs[1].key, "other weights"
    assert lower(plan_part(Scaled(scale=3.0)), 3, 0).key == programs[0].key, "other buffers"
    assert lower(plan_part(Scaled(hidden=21)), 3, 0).key != programs[0].key
    assert programs[0].constants.tolist() == [2.0, 2.0, 2.0]
    assert lower(plan_part(Scaled(scale=3.0)), 3, 0).constants.tolist() == [3.0, 3.0, 3.0]


def test_program_is_plain_data() -> None:
    program = lower(plan_part(Scaled()), 3, 0)
    again = pickle.loads(pickle.dumps(program))
    assert again.key == program.key
    assert again.source == program.source
    assert b"torch" not in pickle.dumps(program)


def test_flags_say_what_f_depends_on() -> None:
    def part(body: object) -> TorchPart:
        return TorchPart(lambda t, y, c, p: body(t, y, c), (), "flags")  # type: ignore[operator]

    plain = lower(part(lambda t, y, c: -y), 2, 1)
    assert (plain.time_dependent, plain.uses_context) == (False, False)
    step = lower(part(lambda t, y, c: torch.where(t > 1.0, y, -y)), 2, 1)
    assert (step.time_dependent, step.uses_context) == (True, False), "df/dt = 0 almost everywhere, yet f sees t"
    assert lower(part(lambda t, y, c: y * c), 2, 1).uses_context


def test_robertson_is_written_as_by_hand() -> None:
    case = next(c for c in CASES if c.name == "robertson")
    source = lower(case.part(), 3, 2).source
    jacobian = source[source.index("function jac!") : source.index("function tgrad!")]
    assert "for " not in source
    assert "k_" not in source
    assert jacobian.count("J[") == 7, "the two structural zeros are not written"


def test_long_straight_line_code_becomes_loops() -> None:
    case = Case("long", lambda y, p, t, c: _many_steps(y, p), n=16, shapes=((16,),))
    source = lower(case.part(), 16, 2).source
    assert max(len(f.splitlines()) for f in source.split("function ")) < 2100


def _many_steps(y: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    for _ in range(60):
        y = y + 0.01 * torch.sin(y * p)
    return y


class Branching(hsb.VectorField):
    state_shape = (2,)

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        if y[0] > 0:
            return y
        return -y


def refusal(body: object, n: int = 3) -> str:
    part = TorchPart(lambda t, y, c, p: body(y), (), "Model")  # type: ignore[operator]
    with pytest.raises(hsb.UnsupportedOperation) as caught:
        lower(part, n, 0)
    return str(caught.value)


def test_branch_on_a_value_is_refused_with_the_line() -> None:
    with pytest.raises(hsb.UnsupportedOperation, match=r"test_lowering\.py:\d+.*torch\.where") as caught:
        lower(plan_part(Branching()), 2, 0)
    line = int(str(caught.value).split("test_lowering.py:")[1].split(":")[0])
    with open(__file__, encoding="utf-8") as file:
        assert "if y[0] > 0" in file.readlines()[line - 1]


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda y: torch.linalg.inv(y.reshape(1, 1)).reshape(1), ["aten.linalg_inv", "backend=", "test_lowering.py:"]),
        (lambda y: torch.fft.fft(y).real, ["_fft_", "backend="]),
        (lambda y: torch.nn.functional.dropout(y, 0.5, training=True), ["random", "eval()"]),
        (lambda y: y + torch.randn(1), ["random"]),
        (lambda y: y * float(y[0]), ["Python number", "torch.where"]),
        (lambda y: y[y > 0], ["mask"]),
        (lambda y: torch.tensor(y.tolist()), ["leaves torch", ".tolist()"]),
        (lambda y: torch.from_numpy(y.detach().numpy()), ["leaves torch", ".numpy()"]),
        (lambda y: y.add_(1.0), ["in place"]),
    ],
    ids=["inv", "fft", "dropout", "randn", "float", "mask", "tolist", "numpy", "in_place"],
)
def test_refusals_name_the_operator_and_the_fix(body: object, words: list[str]) -> None:
    message = refusal(body, 1 if "inv" in words[0] else 3)
    for word in words:
        assert word in message, message


def test_users_own_errors_pass_through() -> None:
    part = TorchPart(lambda t, y, c, p: y + torch.ones(5), (ParameterSpec("p", (1,)),), "Model")
    with pytest.raises(RuntimeError, match="size of tensor"):
        lower(part, 3, 0)


class SinglePrecision(hsb.VectorField):
    """Parameters, buffers and constants as torch makes them by default."""

    state_shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3, 3)
        self.register_buffer("mix", torch.tensor([[0.5, -1.0, 0.25], [0.0, 2.0, 1.0], [1.0, 0.0, 0.125]]))

    def forward(self, t: torch.Tensor, y: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return self.mix @ torch.tanh(self.net(y)) * torch.tensor([1.0, 2.0, 4.0]) + self.net(y).float()


def test_single_precision_models_are_lowered_to_float64() -> None:
    field = SinglePrecision()
    part = plan_part(field)
    traced = trace(part, 3, 0)
    rng = np.random.default_rng(0)
    values = {"u": rng.standard_normal(3), "p": rng.standard_normal(12), "t": np.array(0.0), "c": np.zeros(0)}
    f = next(f for f in functions(traced, part) if f.name == "f!")
    got = run(traced.graph, f, values, {"du": 3})["du"]
    weight, bias = values["p"][:9].reshape(3, 3), values["p"][9:]
    hidden = weight @ values["u"] + bias
    wanted = field.mix.double().numpy() @ np.tanh(hidden) * np.array([1.0, 2.0, 4.0]) + hidden
    np.testing.assert_allclose(got, wanted, rtol=1e-14)
