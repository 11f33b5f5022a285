"""Coefficients of the embedded methods.

Rosenbrock methods in the form without Jacobian-vector products: with E = I/(γh) - J(t_n, u_n),

    E k_i = f(t_n + c_i h, u_i) + h d_i f_t + Σ_{j<i} (C_ij/h) k_j,    u_i = u_n + Σ_{j<i} A_ij k_j,
    u_{n+1} = u_n + Σ b_i k_i,   error = Σ e_i k_i,
    u(θ) = u_n + Σ w_i(θ) k_i,   w_i(θ) = θ b_i + θ(1-θ) Σ_r H_ri θ^r      (0 <= θ <= 1).

Explicit Runge-Kutta methods likewise with k_i = h f(t_n + c_i h, u_i).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Tableau:
    """One method. ``A`` and ``C`` hold the rows below the diagonal, ``H`` one row a power of θ.

    ``weights`` (explicit methods) has in row i the coefficients of θ, θ², ... of w_i, instead of ``H``.
    """

    name: str
    order: int
    A: Rows
    c: tuple[float, ...]
    b: tuple[float, ...]
    e: tuple[float, ...]
    gamma: float = 0.0
    C: Rows = ()
    d: tuple[float, ...] = ()
    H: Rows = ()
    weights: Rows = ()

    @property
    def stages(self) -> int:
        return len(self.c)

    @property
    def stiff(self) -> bool:
        return self.gamma != 0.0

    @cached_property
    def used(self) -> int:
        """Stages that the solution or the interpolant depends on; later ones serve the error estimate."""
        last = self.stages
        while last > 1 and self.b[last - 1] == 0 and not any(row[last - 1] for row in self.H or _columns(self.weights)):
            last -= 1
        return last

    def interpolation(self, theta: torch.Tensor, derivative: bool = False) -> torch.Tensor:
        """w_i(θ), or w_i'(θ), for θ (N,): (N, stages)."""
        polynomials = torch.tensor(self._polynomials, dtype=theta.dtype, device=theta.device)  # (powers, stages)
        out = torch.zeros(len(theta), self.stages, dtype=theta.dtype, device=theta.device)
        x = theta[:, None]
        for power in range(len(polynomials), 0, -1):
            row = polynomials[power - 1]
            out = out * x + (power * row if derivative else row)
        if derivative:
            return out
        ends = torch.tensor(self.b, dtype=theta.dtype, device=theta.device)  # to the last bit, at a step's end
        return torch.where(x == 1, ends, out * x)

    @cached_property
    def _polynomials(self) -> list[list[float]]:
        """Row q has the coefficients of θ^(q+1)."""
        if self.weights:
            return [list(column) for column in _columns(self.weights)]
        rows = [list(self.b)] + [[0.0] * self.stages for _ in range(len(self.H) + 1)]
        for r, row in enumerate(self.H):
            for i, value in enumerate(row):
                rows[r][i] += value
                rows[r + 1][i] -= value
        return rows


def _columns(rows: Rows) -> Rows:
    return tuple(zip(*rows, strict=True))


_RODAS5P_LAST = (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946)

# Steinebach, BIT Numerical Mathematics 63:27 (2023): order 5, L-stable, stiffly accurate, eight stages.
RODAS5P = Tableau(
    name="Rodas5P",
    order=5,
    gamma=0.21193756319429014,
    A=(
        (),
        (3.0,),
        (2.849394379747939, 0.45842242204463923),
        (-6.954028509809101, 2.489845061869568, -10.358996098473584),
        (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
        _RODAS5P_LAST,
        (*_RODAS5P_LAST, 1.0),
        (*_RODAS5P_LAST, 1.0, 1.0),
    ),
    C=(
        (),
        (-14.155112264123755,),
        (-17.97296035885952, -2.859693295451294),
        (147.12150275711716, -1.41221402718213, 71.68940251302358),
        (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
        (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
        (
            30.91273214028599,
            -3.1208243349937974,
            77.79954646070892,
            34.28646028294783,
            -19.097331116725623,
            -28.087943162872662,
        ),
        (
            37.80277123390563,
            -3.2571969029072276,
            112.26918849496327,
            66.9347231244047,
            -40.06618937091002,
            -54.66780262877968,
            -9.48861652309627,
        ),
    ),
    c=(0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0),
    d=(
        0.21193756319429014,
        -0.42387512638858027,
        -0.3384627126235924,
        1.8046452872882734,
        2.325825639765069,
        0.0,
        0.0,
        0.0,
    ),
    b=(*_RODAS5P_LAST, 1.0, 1.0, 1.0),
    e=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    H=(
        (
            25.948786856663858,
            -2.5579724845846235,
            10.433815404888879,
            -2.3679251022685204,
            0.524948541321073,
            1.1241088310450404,
            0.4272876194431874,
            -0.17202221070155493,
        ),
        (
            -9.91568850695171,
            -0.9689944594115154,
            3.0438037242978453,
            -24.495224566215796,
            20.176138334709044,
            15.98066361424651,
            -6.789040303419874,
            -6.710236069923372,
        ),
        (
            11.419903575922262,
            2.8879645146136994,
            72.92137995996029,
            80.12511834622643,
            -52.072871366152654,
            -59.78993625266729,
            -0.15582684282751913,
            4.883087185713722,
        ),
    ),
)

_RODAS4_LAST = (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.687886036105895)

# Hairer and Wanner, Solving Ordinary Differential Equations II (1996), IV.7: order 4, L-stable, six stages.
RODAS4 = Tableau(
    name="Rodas4",
    order=4,
    gamma=0.25,
    A=(
        (),
        (1.544,),
        (0.9466785280815826, 0.2557011698983284),
        (3.314825187068521, 2.896124015972201, 0.9986419139977817),
        _RODAS4_LAST,
        (*_RODAS4_LAST, 1.0),
    ),
    C=(
        (),
        (-5.6688,),
        (-2.430093356833875, -0.2063599157091915),
        (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
        (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.7089089320616),
        (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054),
    ),
    c=(0.0, 0.386, 0.21, 0.63, 1.0, 1.0),
    d=(0.25, -0.1043, 0.1035, -0.0362, 0.0, 0.0),
    b=(*_RODAS4_LAST, 1.0, 1.0),
    e=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    H=(
        (10.12623508344586, -7.487995877610167, -34.80091861555747, -7.992771707568823, 1.025137723295662, 0.0),
        (-0.6762803392801253, 6.087714651680015, 16.43084320892478, 24.76722511418386, -6.594389125716872, 0.0),
    ),
)

_RODAS4P_LAST = (-7.170454962423024, -4.741636671481785, -16.31002631330971, -1.062004044111401)

# Steinebach, Order reduction of ROW methods for DAEs and method of lines applications, TH Darmstadt (1995).
RODAS4P = Tableau(
    name="Rodas4P",
    order=4,
    gamma=0.25,
    A=(
        (),
        (3.0,),
        (1.831036793486759, 0.4955183967433795),
        (2.304376582692669, -0.05249275245743001, -1.176798761832782),
        _RODAS4P_LAST,
        (*_RODAS4P_LAST, 1.0),
    ),
    C=(
        (),
        (-12.0,),
        (-8.791795173947035, -2.207865586973518),
        (10.81793056857153, 6.780270611428266, 19.5348594464241),
        (34.19095006749676, 15.49671153725963, 54.7476087596413, 14.16005392148534),
        (34.62605830930532, 15.30084976114473, 56.99955578662667, 18.40807009793095, -5.714285714285717),
    ),
    c=(0.0, 0.75, 0.21, 0.63, 1.0, 1.0),
    d=(0.25, -0.5, -0.023504, -0.0362, 0.0, 0.0),
    b=(*_RODAS4P_LAST, 1.0, 1.0),
    e=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    H=(
        (25.09876703708589, 11.62013104361867, 28.49148307714626, -5.664021568594133, 0.0, 0.0),
        (1.638054557396973, -0.7373619806678748, 8.47791821923899, 15.9925314877952, -1.882352941176471, 0.0),
    ),
)


def _rosenbrock23() -> Tableau:
    # Shampine and Reichelt, The MATLAB ODE suite, SIAM J. Sci. Comput. 18 (1997): with their slopes, k_1 is
    # γh k₁ and k_2 is γh (k₂ - k₁); their third slope, for the error alone, is γh k₃ - 2 k_1 - (6+√2) k_2.
    g, c32 = 1 / (2 + math.sqrt(2)), 6 + math.sqrt(2)
    return Tableau(
        name="Rosenbrock23",
        order=2,
        gamma=g,
        A=((), (1 / (2 * g),), (1 / g, 1 / g)),
        C=((), (-1 / g,), (-2 / g, -c32 / g)),
        c=(0.0, 0.5, 1.0),
        d=(g, 0.0, 1 - 2 * g),
        b=(1 / g, 1 / g, 0.0),
        e=(1 / (6 * g), (c32 - 2) / (6 * g), 1 / (6 * g)),
        H=((0.0, -1 / ((1 - 2 * g) * g), 0.0),),
    )


ROSENBROCK23 = _rosenbrock23()

# Tsitouras, Computers and Mathematics with Applications 62 (2011) 770: order 5(4), first same as last.
TSIT5 = Tableau(
    name="Tsit5",
    order=5,
    A=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ),
    ),
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    b=(0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774, 0.0),
    e=(
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        0.015151515151515152,
    ),
    weights=(
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.13169999999999998, -0.2234, 0.1017),
        (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
)

TABLEAUS = {tableau.name: tableau for tableau in (RODAS5P, RODAS4, RODAS4P, ROSENBROCK23, TSIT5)}
