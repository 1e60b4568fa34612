r"""Laws of operators H of y = H x + noise, and of restorers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffbench.conform.law import IdleError, demand, law, unless
from diffbench.conform.trial import (
    GaussianData,
    apart,
    beside,
    generator,
    images,
    made,
    moved,
    normal,
    other_range,
    processes,
    refuse_randomness,
)
from diffbench.diffusion.core.returned import check_like, described
from diffbench.diffusion.inverse.operators.operator import Degradation, Operator
from diffbench.diffusion.inverse.restorers.restorer import Measurement, Restorer
from diffbench.jobs.restore import wired
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.operators import ImageShape, OperatorSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.restorers import RestorerSpec

#: Products of matrices with at most 3 x 16 x 16 rows, in float64.
EQUAL = 1e-8
#: What a restorer with steps may leave of a measurement without noise: the last of its levels has 0.01 of noise.
HONOURED = 0.02
SHAPES: tuple[ImageShape, ...] = ((1, 8, 8), (3, 8, 8), (3, 16, 16))
WITH_MASKS = NetworkDenoiserSpec(predict="eps", masks=True)


def operator_of(spec: OperatorSpec, low: float = -1.0, high: float = 1.0) -> Degradation:
    """The operator, for the first images that it can degrade.

    Raises:
        IdleError: with the last refusal.
    """
    for shape in SHAPES:
        if (reason := spec.refusal(shape)) is None:
            facts: dict[str, Any] = {"image_shape": shape, "low": low, "high": high}
            operator: Degradation = build(spec, **{name: facts[name] for name in spec.facts})
            return operator
    raise IdleError(str(reason))


def linear(spec: OperatorSpec) -> Operator:
    """The operator, if it is a matrix."""
    unless(not spec.linear, "it is not linear")
    found = operator_of(spec)
    demand(isinstance(found, Operator), "linear is true, but the class is not an Operator")
    assert isinstance(found, Operator)
    return found


def pictures(operator: Degradation, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images (3, C, H, W) in [-1, 1]."""
    return normal((3, *operator.image_shape), seed, dtype).tanh()


@law(
    OperatorSpec,
    "shapes and dtypes",
    "H: (B, C, H, W) -> (B, *measurement_shape), H^+ back, in the dtype of x",
)
def shapes(spec: OperatorSpec) -> None:
    """A measurement has one row for each image."""
    operator = operator_of(spec)
    x = pictures(operator, dtype=torch.float32)
    kept = x.clone()
    y = operator.apply(x)
    right = tuple(y.shape) == (3, *operator.measurement_shape) and y.dtype == x.dtype
    demand(
        right,
        f"apply returned {described(y)}, and measurement_shape is {operator.measurement_shape}",
    )
    check_like(operator.pseudo_inverse(y), x, "pseudo_inverse")
    demand(torch.equal(x, kept), "apply changes x in place")
    demand(torch.equal(operator.apply(x), y), "two measurements of one image differ")
    alone = operator.apply(x[:1])
    demand(apart(alone, y[:1]) < 1e-5, "a measurement depends on the rest of the batch")


@law(OperatorSpec, "the adjoint is the adjoint", "<H x, y> = <x, H^T y>")
def adjoint(spec: OperatorSpec) -> None:
    """Guidance by a measurement uses H^T."""
    operator = linear(spec)
    x = pictures(operator)
    y = normal((3, *operator.measurement_shape), 2)
    left = float((operator.apply(x) * y).sum())
    right = float((x * operator.adjoint(y)).sum())
    size = float(operator.apply(x).norm() * y.norm())
    demand(
        abs(left - right) < EQUAL * size, f"<H x, y> is {left:.6g}, but <x, H^T y> is {right:.6g}"
    )


@law(OperatorSpec, "V is orthogonal", "V V^T x = x and |V^T x| = |x|; s >= 0")
def orthogonal(spec: OperatorSpec) -> None:
    """White noise is white in the coordinates of V."""
    operator = linear(spec)
    x = pictures(operator)
    u = operator.coordinates(x)
    demand(
        apart(operator.pixels(u), x) < EQUAL,
        f"V V^T x differs from x by {apart(operator.pixels(u), x):.3g}",
    )
    lengths = float(u.norm()), float(x.norm())
    demand(
        abs(lengths[0] / lengths[1] - 1) < EQUAL,
        f"|V^T x| is {lengths[0]:.6g}, |x| is {lengths[1]:.6g}",
    )
    demand((operator.s >= 0).all(), f"a singular value is {float(operator.s.min()):.4g}")


@law(OperatorSpec, "the pseudo-inverse is consistent", "H H^+ y = y for y = H x")
def inverse(spec: OperatorSpec) -> None:
    """An image that agrees with a measurement without noise is known."""
    operator = operator_of(spec)
    y = operator.apply(pictures(operator).clamp(-1, 1))
    error = apart(operator.apply(operator.pseudo_inverse(y)), y)
    demand(error < 1e-6, f"H H^+ y differs from y by {error:.3g}")


@law(OperatorSpec, "H is linear", "H(a x + b z) = a H x + b H z")
def is_linear(spec: OperatorSpec) -> None:
    """``linear`` says that H is a matrix."""
    operator = linear(spec)
    x, z = pictures(operator), pictures(operator, 3)
    error = apart(operator.apply(2 * x - 3 * z), 2 * operator.apply(x) - 3 * operator.apply(z))
    demand(error < EQUAL, f"H(2 x - 3 z) differs from 2 H x - 3 H z by {error:.3g}")


class WithMasks(GaussianData):
    """The exact denoiser, which can be given known pixels and does not look at them."""

    takes_masks = True


class Tried:
    """A restorer with a process and an operator that it serves."""

    def __init__(
        self, spec: RestorerSpec, operator: OperatorSpec, process: ProcessSpec | None = None
    ) -> None:
        self.spec = spec
        self.process = process or self._process(operator)
        self.operator = operator_of(operator, self.process.low, self.process.high)
        shape = self.operator.image_shape
        self.restorer: Restorer = wired(
            spec,
            WithMasks(made(self.process, shape)),
            lambda: images(self.process, 256, shape),
            self.process.middle,
        )

    def _process(self, operator: OperatorSpec) -> ProcessSpec:
        reason: str | None = "there is no process"
        for each in processes("vp", "ve", "discrete"):
            reason = self.spec.refusal(each, WITH_MASKS, operator)
            if reason is None:
                return each
        raise IdleError(str(reason))

    def truth(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Images (2, C, H, W) of that distribution."""
        return images(self.process, 2, self.operator.image_shape, dtype)

    def restored(self, x: Tensor, std: float = 0.0) -> tuple[Tensor, Tensor]:
        """The measurement of images and their restoration, from one seed."""
        y = self.operator.apply(x)
        with torch.no_grad():
            return y, self.restorer.restore(Measurement(self.operator, y, std), generator())


def tried(spec: RestorerSpec) -> Tried:
    """The restorer with the first operator that it serves, one of its own file before the package's.

    Raises:
        IdleError: with the last refusal.
    """
    reason: IdleError | None = None
    known = ({"name": "random-mask"}, {"name": "bicubic", "factor": 2})
    for operator in (*beside(spec, OperatorSpec), *map(OperatorSpec.choose, known)):
        try:
            return Tried(spec, operator)
        except IdleError as why:
            reason = why
    raise IdleError(str(reason))


@law(
    RestorerSpec,
    "shapes and dtypes",
    "one image for each measurement, (B, C, H, W) in the dtype of y",
)
def restores(spec: RestorerSpec) -> None:
    """Restorations are finite images."""
    found = tried(spec)
    x = found.truth(torch.float32)
    y, restored = found.restored(x, 0.05)
    check_like(restored, x, "restore")
    demand(restored.isfinite().all(), "a restoration is not finite")
    again = y.clone()
    found.restorer.restore(Measurement(found.operator, y, 0.05), generator())
    demand(torch.equal(y, again), "restore changes y in place")


@law(RestorerSpec, "a seed gives the same restorations", "restore(y, seed) = restore(y, seed)")
def repeats(spec: RestorerSpec) -> None:
    """All noise comes from the generator."""

    def restored() -> Tensor:
        found = tried(spec)
        return found.restored(found.truth())[1]

    refuse_randomness(restored, "restorations of one seed differ by {}")


@law(RestorerSpec, "a measurement without noise is honoured", "H x = y where y = H x_0")
def honours(spec: RestorerSpec) -> None:
    """What was measured exactly is kept."""
    unless(not spec.honours, "it states that it does not (honours = False)")
    found = tried(spec)
    y, restored = found.restored(found.truth())
    error = float((found.operator.apply(restored) - y).square().mean().sqrt())
    error /= found.process.half_range
    demand(error < HONOURED, f"H x differs from y by {error:.3g} (root mean square), noise is 0")


@law(
    RestorerSpec, "a restorer does not see the truth", "H x = H x' => restore(H x) = restore(H x')"
)
def blind(spec: RestorerSpec) -> None:
    """Two images with one measurement have one restoration."""
    found = tried(spec)
    unless(not isinstance(found.operator, Operator), "its operator is not linear")
    x, change = found.truth(), normal(found.truth().shape, 7) * 0.3
    # What H does not measure: the part of the change that H^+ H takes away.
    hidden = change - found.operator.pseudo_inverse(found.operator.apply(change))
    demand(float(hidden.abs().max()) > 0.01, "the operator measures everything")
    (_, first), (_, other) = found.restored(x), found.restored(x + hidden)
    # The two measurements agree to 1e-16, which steps magnify.
    error = apart(first, other)
    demand(
        error < 1e-6,
        f"it sees the truth: with another x of the same y the restoration differs by {error:.3g}",
    )


@law(
    RestorerSpec,
    "a change of the data range changes restorations affinely",
    "x' = m' + r (x - m) from y' = H x_0'",
)
def ranged(spec: RestorerSpec) -> None:
    """Data in [0, 1] are data in [-1, 1], moved."""
    here = tried(spec)
    unless(not here.operator.spec.linear, "its operator depends on the data range")
    unless(
        here.process.written_for != 1, f"{here.process.name} has constants in units of its range"
    )
    there = Tried(spec, here.operator.spec, other_range(here.process))
    x = here.truth()
    first = here.restored(x)[1]
    other = there.restored(moved(x, here.process, there.process))[1]
    error = apart(other, moved(first, here.process, there.process))
    demand(error < 1e-5, f"restorations on {there.process.range} differ by {error:.3g}")
