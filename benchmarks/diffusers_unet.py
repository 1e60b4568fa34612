"""DDPM's network and training step beside the same network of `diffusers`, on real images, interleaved.

    .venv/bin/pip install diffusers
    .venv/bin/python benchmarks/diffusers_unet.py FOLDER --steps 300 --channels 64 --batch 16

FOLDER holds CIFAR-10 as parquet files. Both sides train DDPM's L_simple from the same weights, which are imported, with
the same batch, precision, optimiser, clipping and averaging; ours by the train stage's own trainer. Rates are medians
over blocks that take turns.
"""

import argparse
import statistics
import time

import torch

from diffbench.data.datasets import Dataset
from diffbench.jobs.train import denoiser_trainer
from diffbench.metrics import torchvision_operators
from diffbench.pretrained import diffusers
from diffbench.pretrained.conversion import converted
from diffbench.specs.data import ParquetSpec
from diffbench.specs.denoisers import NetworkDenoiserSpec
from diffbench.specs.jobs import TrainSpec
from diffbench.specs.networks.residual_unet import DDPMOriginalSpec
from diffbench.specs.objectives import SimpleSpec
from diffbench.specs.processes import DiscreteSpec
from diffbench.specs.registry import build
from diffbench.specs.training import TrainingSpec
from diffbench.training import machine

BLOCK = 10


def ours(options: argparse.Namespace, data: ParquetSpec, dataset: Dataset, device: torch.device):
    """A step of the train stage, and its network."""
    spec = TrainSpec(
        variant="ddpm",
        seed=0,
        data=data,
        process=DiscreteSpec(schedule="linear", steps=1000),
        denoiser=NetworkDenoiserSpec(predict="eps", noise_input="time"),
        network=DDPMOriginalSpec(channels=options.channels, dropout=0.1),
        objective=SimpleSpec(),
        training=TrainingSpec(
            steps=options.steps,
            batch=options.batch,
            warmup=options.warmup,
            flip=True,
            precision=options.precision,
        ),
    )
    trainer = denoiser_trainer(spec, dataset, device)
    return lambda: float(trainer.advance()), trainer.network


def theirs(options: argparse.Namespace, dataset: Dataset, device: torch.device):
    """The usual loop around `UNet2DModel`, and that."""
    torchvision_operators.ensure_importable()
    from diffusers import UNet2DModel

    width = options.channels
    network = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(width, 2 * width, 2 * width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2 * width,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        dropout=0.1,
    ).to(device)
    average = [p.detach().clone() for p in network.parameters()]
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-4, weight_decay=0)
    kept = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)
    signal, noise = kept.sqrt().float().to(device), (1 - kept).sqrt().float().to(device)
    images = torch.from_numpy(dataset.train).permute(0, 3, 1, 2).contiguous().to(device)
    generator = torch.Generator(device).manual_seed(0)
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")
    step = 0

    def advance() -> float:
        nonlocal step
        step += 1
        batch = options.batch
        for group in optimiser.param_groups:
            group["lr"] = 2e-4 * min(1.0, step / (options.warmup + 1))
        rows = torch.randint(len(images), (batch,), generator=generator, device=device)
        x = images[rows].float() / 127.5 - 1
        mirrored = torch.rand(batch, generator=generator, device=device) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        t = torch.randint(1000, (batch,), generator=generator, device=device)
        eps = torch.randn(x.shape, generator=generator, device=device)
        noisy = signal[t, None, None, None] * x + noise[t, None, None, None] * eps
        with bf16:
            loss = (network(noisy, t).sample.float() - eps).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        rate = min(0.9999, (1 + step) / (10 + step))
        torch._foreach_lerp_(average, [p.detach() for p in network.parameters()], 1 - rate)
        return float(loss.detach())

    return advance, network


def import_weights(network: torch.nn.Module, peer: torch.nn.Module, device: torch.device) -> None:
    """Give our network the peer's weights; check that it then says the same."""
    state = peer.state_dict()
    rules = diffusers.rules(diffusers.architecture(state))
    network.load_state_dict(converted(state, rules, network))
    x, t = torch.randn(2, 3, 32, 32, device=device), torch.tensor([10, 900], device=device)
    with torch.no_grad():
        theirs = peer.eval()(x, t).sample
        found = network.eval()(x, t.float())
    peer.train()
    network.train()
    # float32 rounds by 6e-8, and some 50 layers add it up.
    assert (found - theirs).abs().max() < 1e-4 * theirs.abs().max().clamp(min=1)


def errors(network, dataset: Dataset, device: torch.device, theirs: bool) -> torch.Tensor:
    """Squared errors of the predicted noise, the same images, noises and times for both (512,)."""
    generator = torch.Generator().manual_seed(1)
    x = torch.from_numpy(dataset.test[:512]).permute(0, 3, 1, 2).float() / 127.5 - 1
    t = torch.arange(512) * 1000 // 512
    eps = torch.randn(x.shape, generator=generator)
    kept = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)[t]
    signal, noise = (each.sqrt().float()[:, None, None, None] for each in (kept, 1 - kept))
    noisy, found = signal * x + noise * eps, []
    network.eval()
    with torch.no_grad():
        for some, times in zip(noisy.split(64), t.split(64), strict=True):
            said = network(
                some.to(device), times.to(device) if theirs else times.float().to(device)
            )
            found.append((said.sample if theirs else said).float().cpu())
    return (torch.cat(found) - eps).square().mean((1, 2, 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--lossy", action="store_true", help="the images were JPEGs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    device = machine.prepare("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(options.threads)
    data = ParquetSpec(path=options.folder, size=32, channels=3, lossy=options.lossy)
    dataset = build(data).load()
    sides = {"diffusers": theirs(options, dataset, device)}
    sides["ours"] = ours(options, data, dataset, device)
    import_weights(sides["ours"][1], sides["diffusers"][1], device)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.steps // BLOCK):
        for name, (advance, _) in sides.items():
            start = time.perf_counter()
            losses[name] += [advance() for _ in range(BLOCK)]
            rates[name].append(BLOCK * options.batch / (time.perf_counter() - start))
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["diffusers"], strict=True))
    tail = options.steps // 4
    for name, (_, network) in sides.items():
        parameters = sum(each.numel() for each in network.parameters())
        loss, rate = statistics.fmean(losses[name][-tail:]), statistics.median(rates[name])
        print(
            f"{name:9}  {parameters:,} parameters  {rate:8.1f} images/s  loss {loss:.4f} (last {tail} steps)"
        )
    mine, other = (
        errors(sides[name][1], dataset, device, name == "diffusers")
        for name in ("ours", "diffusers")
    )
    gap = (mine - other).mean() / other.mean()
    se = (mine - other).std() / len(mine) ** 0.5 / other.mean()
    print(
        f"test images: {mine.mean():.4f} and {other.mean():.4f}, {gap:+.1%} (standard error {se:.1%})"
    )
    print(f"ours / diffusers: {ratio:.2f} images/s, median of {len(rates['ours'])} pairs of blocks")


if __name__ == "__main__":
    main()
