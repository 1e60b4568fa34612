"""The Langevin corrector: score_sde's updates, what one does to a Gaussian, where it goes."""

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from toys import (
    Toy,
    chain_times,
    chosen_process,
    close,
    column,
    made,
    process_of,
    recorded,
    toy_score,
)

from diffbench.diffusion.core.condition import UNCONDITIONAL
from diffbench.diffusion.core.process import float64
from diffbench.diffusion.denoisers.denoiser import Counted
from diffbench.diffusion.denoisers.exact import GaussianDenoiser
from diffbench.diffusion.solvers.corrector import Langevin
from diffbench.diffusion.solvers.loop import sample
from diffbench.specs.denoisers import GaussianSpec
from diffbench.specs.processes import ProcessSpec
from diffbench.specs.registry import build
from diffbench.specs.solvers import CorrectorOnlySpec, EulerMaruyamaSpec, LangevinSpec, SolverSpec

FILES = {"sde_steps": (1000, {}, 1000), "sde_steps_b": (100, {"sigma_max": 90}, 200)}
CONTINUOUS = sorted(
    name
    for name, known in ProcessSpec.known.items()
    if known.time == "continuous" and known.family == "gaussian" and known.alpha == "scalar"
)
every_process = pytest.mark.parametrize("name", CONTINUOUS)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("name", "sde"), [("vp", "VP"), ("vp-chain", "VP"), ("ve", "VE")])
def test_langevin_updates(file: str, name: str, sde: str) -> None:
    """snr 0.16, norms averaged over the five images; VP's scale is that of the chain's level."""
    arrays, (vp_levels, ve, ve_levels) = recorded(file), FILES[file]
    levels = vp_levels if sde == "VP" else ve_levels
    parameters = {"vp": {}, "vp-chain": {"levels": levels}, "ve": ve}
    process = process_of(name, **parameters[name])
    t, _ = chain_times(process, arrays["t"], levels)
    x = arrays["x"] * (20 if sde == "VE" else 1)
    denoiser = Toy(process, "score", lambda x, _: toy_score(x, column(arrays["t"])))

    def updated(count: int, quiet: bool) -> torch.Tensor:
        spec = LangevinSpec(snr=0.16, updates=count, levels=levels)
        noises = iter([arrays["noise"], arrays["noise2"]])
        return Langevin(spec, denoiser).correct(
            x, column(t), UNCONDITIONAL, lambda _: next(noises), quiet
        )

    corrector = Langevin(LangevinSpec(snr=0.16, levels=levels), denoiser)
    score = denoiser(x, column(t)).score
    size = torch.as_tensor(corrector.step_size(column(t), score, arrays["noise"]))
    close(size.flatten().expand(5), arrays[f"langevin_{sde}_stepsize"])
    close(updated(1, True), arrays[f"langevin_{sde}_mean"])
    close(updated(1, False), arrays[f"langevin_{sde}_x"])
    if sde == "VP":
        close(updated(2, True), arrays["langevin2_VP_mean"])
        close(updated(2, False), arrays["langevin2_VP_x"])


@pytest.mark.parametrize("file", FILES)
def test_langevin_updates_of_a_chain(file: str) -> None:
    """score_sde's discrete runs: the chain's own 1 - beta at level floor(t (N - 1)), whatever ``levels`` says."""
    arrays, steps = recorded(file), FILES[file][0]
    chain = process_of("discrete", schedule="linear", steps=steps)
    level = column((arrays["t"] * (steps - 1)).floor())
    denoiser = Toy(chain, "score", lambda x, _: toy_score(x, column(arrays["t"])))
    spec = LangevinSpec(snr=0.16, levels=7)
    assert spec.refusal(chain.spec) is None
    corrector, noise = Langevin(spec, denoiser), arrays["noise"]
    size = corrector.step_size(level, denoiser(arrays["x"], level).score, noise)
    close(size.flatten(), arrays["langevin_VP_stepsize"])
    for quiet, key in ((True, "langevin_VP_mean"), (False, "langevin_VP_x")):
        close(
            corrector.correct(arrays["x"], level, UNCONDITIONAL, lambda _: noise, quiet),
            arrays[key],
        )


@every_process
def test_the_annealed_rule_is_that_of_the_norms_where_scores_are_noise(name: str) -> None:
    """eps = 2 a (r sigma_t)^2; of a score -z/sigma_t the norms say the same, to rounding, and of another one not."""
    process, t = process_of(name), column(float64([0.3, 0.3]))
    z = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    sigma = process.sigma(t)
    toy = Toy(process, "score", lambda x, t: x)
    annealed, norms = (
        Langevin(LangevinSpec(snr=0.2, rule=rule), toy) for rule in ("annealed", "norms")
    )
    size = annealed.step_size(t, -z / sigma, z)
    close(size, 2 * process.langevin_scale(t, 1000) * (0.2 * sigma) ** 2, rtol=1e-14)
    close(norms.step_size(t, -z / sigma, z), size, rtol=1e-14)
    assert torch.equal(annealed.step_size(t, -5 * z / sigma, z), size)
    assert norms.step_size(t, -5 * z / sigma, z).max() < size.max() / 10


@every_process
def test_levels_are_a_setting_where_they_change_the_step(name: str) -> None:
    """A setting without effect is refused (`specs.base.OnlyFor`), so the spec must know where it has one."""
    process, t = process_of(name), column(float64([0.3]))
    few, many = (process.langevin_scale(t, levels).item() for levels in (100, 1000))
    _, _, reason = next(LangevinSpec(snr=0.2, levels=100).dependent(process.spec))
    assert (few == many) == (reason is not None)


def test_the_annealed_rule_takes_each_images_own_level() -> None:
    process, t = process_of("ve"), column(float64([0.2, 0.8]))
    corrector = Langevin(
        LangevinSpec(snr=0.1, rule="annealed"), Toy(process, "score", lambda x, t: -x)
    )
    x = torch.ones(2, 1, 2, 2).double()
    moved = corrector.update(x, t, UNCONDITIONAL, torch.zeros_like)
    close(moved, x - 2 * (0.1 * process.sigma(t)) ** 2 * x, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "longest", "want"),
    [("reflected", None, 0.5), ("reflected", 2.0, 2.0), ("ve", None, 8.0), ("ve", 2.0, 2.0)],
)
def test_a_step_is_never_above_the_longest(name: str, longest: float | None, want: float) -> None:
    """Norms of 2 and 1 with r = 1 ask for 2 (2/1)^2 = 8; between walls 0.5 is as wide as they are apart."""
    process, t = process_of(name), float64(0.5)
    spec = LangevinSpec(snr=1, longest=longest)
    corrector = Langevin(spec, Toy(process, "score", lambda x, t: x))
    score, z = torch.tensor([1.0, 0, 0, 0]).double(), torch.ones(4).double()
    sizes = corrector.step_size(t, score.reshape(1, 1, 2, 2), z.reshape(1, 1, 2, 2))
    close(float64(sizes), float64(want))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"step_size": 0.1, "rule": "annealed"}, "rule: annealed computes the step size from snr"),
        ({"step_size": 0.1, "longest": 1}, "longest: it limits the step size from snr"),
        ({"snr": 0.1, "longest": 0}, "longest"),
        ({"snr": 0.1, "rule": "annealled"}, "rule"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LangevinSpec(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"last": 3}, "last: 3 needs continuous time"),
        ({"denoise": "noiseless"}, "denoise: noiseless needs continuous time"),
        ({"steps": 51}, "51, but a chain of 50"),
    ],
)
def test_what_the_corrector_alone_cannot_do_on_a_chain(settings: dict, said: str) -> None:
    chain = chosen_process("discrete")
    spec = CorrectorOnlySpec(**{"steps": 10} | settings)
    assert said in (spec.refusal(chain) or "")


def test_the_corrector_alone_brings_a_chain_to_its_data() -> None:
    """Gaussian pixels of deviation 0.5 about 0.3: 40 updates at each of 25 of 50 levels, with the exact score.

    An update of eps leaves v + eps^2/v of a variance v, and eps is (2 r^2 / |score|^2) |z|^2, which is near 2 r^2 v:
    a relative error of about 4 r^4 an update, which relaxes at 4 r^2 an update: r^2 = 0.01 of v at r = 0.1 in the
    end.  2,000 draws of 4 pixels have a standard error of 0.0056 of the mean and of 1.1 % of the deviation.
    """
    chain = made(chosen_process("discrete"))
    tensors = {"mean": float64([0.3] * 4), "covariance": 0.25 * torch.eye(4).double()}
    spec = CorrectorOnlySpec(steps=25, corrector={"snr": 0.1, "updates": 40})
    solver = build(spec, GaussianDenoiser(GaussianSpec(), chain, tensors))
    x = sample(solver, (2000, 1, 2, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(x.mean() - 0.3) < 4 * 0.0056
    # The last step goes to the posterior mean, whose variance is v alpha^2 v/(alpha^2 v + sigma^2) at the first level.
    kept = 0.25 / (0.25 + chain.ratio(float64(0)) ** 2)
    assert abs(x.std() / (0.5 * kept.sqrt()) - 1) < 4 * 0.011


@every_process
@pytest.mark.parametrize("eps", [1e-3, 0.1, 1.0])
def test_an_update_adds_eps_squared_over_the_variance(name: str, eps: float) -> None:
    """x + eps S + sqrt(2 eps) z with S = -(x - m)/v leaves the mean m and the variance v (1 - eps/v)^2 + 2 eps
    = v + eps^2/v: exactly, so to rounding.  S = (alpha x0 - x)/sigma^2 has that of x0, 1e-16/sigma^2, which
    is 1e-8 where sub-VP stops, and an update eps times it, in units of the largest term, v or eps^2/v.

    Probed at 0, at 1 and with noise 1, in three pixels of variances 0.02, 0.25 and 0.6.
    """
    process, spread = process_of(name), float64([0.02, 0.25, 0.6])
    mean = float64([0.3, -0.2, 0.1])
    tensors = {"mean": mean, "covariance": spread.diag()}
    corrector = Langevin(
        LangevinSpec(step_size=eps), GaussianDenoiser(GaussianSpec(), process, tensors)
    )
    x, z = (
        float64([0.0, 1.0, 0.0]).reshape(3, 1, 1, 1),
        float64([0.0, 0.0, 1.0]).reshape(3, 1, 1, 1),
    )
    for share in (0.0, 0.1, 0.5, 1.0):
        t = float64(process.spec.last + share * (process.t_max - process.spec.last))
        m, v = process.alpha(t) * mean, process.alpha(t) ** 2 * spread + process.sigma(t) ** 2
        rows = corrector.update(
            x.expand(3, 1, 1, 3), t, UNCONDITIONAL, lambda _: z.expand(3, 1, 1, 3)
        )
        b, one, noisy = rows[:, 0, 0]
        slope = one - b
        rounding = 1e-15 * float((v + eps**2 / v).max() * (1 + eps / process.sigma(t) ** 2))
        close(slope * m + b, m, rtol=1e-12, atol=rounding)
        close(slope**2 * v + (noisy - b) ** 2, v + eps**2 / v, rtol=1e-12, atol=10 * rounding)


@every_process
def test_the_norm_rule_is_the_same_for_every_image_of_a_batch(name: str) -> None:
    """Two images with scores s and 3 s: norms are averaged before they are divided, and squared after."""
    process, t = process_of(name), float64(0.5)
    score = torch.ones(2, 1, 2, 2).double() * column(float64([1.0, 3.0]))
    z = torch.ones(2, 1, 2, 2).double() * column(float64([2.0, 4.0]))
    corrector = Langevin(LangevinSpec(snr=0.2), Toy(process, "score", lambda x, t: score))
    beta = 0.1 + 0.5 * 19.9
    scale = {"vp": 1 - beta / 1000, "sub-vp": 1 - beta / 1000}.get(name, 1.0)
    if name == "vp-chain":
        scale = float(process.alpha(t) / process.alpha(t - 1 / 999)) ** 2
    if name == "vp-cosine":
        scale = float(process.alpha(t) / process.alpha(t - 1e-3)) ** 2
    close(float64(corrector.step_size(t, score, z)), float64(2 * scale * (0.2 * 6 / 4) ** 2))


class Path:
    """Which times are corrected, and in which order with the predictor's: a toy score that writes them down."""

    def __init__(self, **corrector: object) -> None:
        self.asked: list[float] = []

        def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.asked.append(float(t))
            return -x

        spec = EulerMaruyamaSpec(steps=4, last=0.1, corrector={"step_size": 0.01, **corrector})
        self.solver = build(spec, Toy(process_of("vp"), "score", score))

    def taken(self) -> list[float]:
        x = torch.ones(1, 1, 2, 2).double()
        for t, s in pairwise(self.solver.times()):
            x = self.solver.move(x, t, s, UNCONDITIONAL, torch.zeros_like)
        return [round(t, 12) for t in self.asked]


def test_predictor_first_corrects_at_the_new_level_and_never_at_the_datas() -> None:
    """Grid 1, 0.7, 0.4, 0.1 and the data: P(1) C(0.7) P(0.7) C(0.4) P(0.4) C(0.1) P(0.1)."""
    assert Path().taken() == [1, 0.7, 0.7, 0.4, 0.4, 0.1, 0.1]
    assert Path(updates=2).taken() == [1, 0.7, 0.7, 0.7, 0.4, 0.4, 0.4, 0.1, 0.1, 0.1]


def test_corrector_first_corrects_at_the_old_level_the_priors_among_them() -> None:
    assert Path(order="corrector-first").taken() == [1, 1, 0.7, 0.7, 0.4, 0.4, 0.1, 0.1]


@pytest.mark.parametrize("order", ["predictor-first", "corrector-first"])
@pytest.mark.parametrize("predictor", ["euler-maruyama", "reverse-diffusion", "ode", "ddim"])
@pytest.mark.parametrize("count", [1, 3])
def test_evaluations_of_every_pairing(order: str, predictor: str, count: int) -> None:
    """24 steps, the last of which goes to the data: a predictor's call each (Heun's: two but into the data),
    and the updates of 23 levels after, or of 24 levels before."""
    denoiser = Counted(Toy(process_of("ve"), "score", lambda x, t: -x))
    spec = SolverSpec.choose(
        {
            "name": predictor,
            "steps": 24,
            "corrector": {"snr": 0.01, "updates": count, "order": order},
        }
    )
    solver = build(spec, denoiser)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 2, 2, generator=generator)
    for t, s in pairwise(solver.times()):
        x = solver.move(x, t, s, UNCONDITIONAL, lambda x: torch.randn(x.shape, generator=generator))
    levels = 23 if order == "predictor-first" else 24
    assert denoiser.calls == (47 if predictor == "ode" else 24) + count * levels
