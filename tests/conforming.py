SETTINGS = {
    ("process", "discrete"): {"schedule": "cosine", "steps": 50},
    ("process", "blurring"): {"sigma_max": 0.5},
}
SETTINGS |= {
    ("solver", "reverse-diffusion"): {"steps": 40},
    ("solver", "langevin"): {"steps": 10, "corrector": {"step_size": 1e-3}},
}
SETTINGS |= {("solver", "transport"): {"steps": 5}}
SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
SETTINGS |= {
    **{
        ("network", name): SMALL
        for name in ("ddpm", "ddpmpp", "edm-ddpmpp", "edm-ncsnpp", "ncsnpp", "reflected")
    },
    **{("network", name): SMALL | {"groups": 4} for name in ("iddpm", "ddpm-original", "ihdm")},
    ("network", "adm"): SMALL | {"groups": 4, "head_channels": 4},
    **{("network", name): {"channels": 8, "blocks": 1, "groups": 4} for name in ("vdm", "reflected-vdm")},
    ("network", "unet"): {"channels": 8, "inner_channels": 8, "embedding": 16},
}
SETTINGS |= {
    **{("operator", name): {"size": 3} for name in ("uniform-blur", "gaussian-blur", "anisotropic-blur")},
    **{("operator", name): {"factor": 2} for name in ("block-average", "bicubic")},
    ("operator", "box-mask"): {"height": 3, "width": 2},
    ("operator", "mask"): {"rows": ("#.......",) + ("........",) * 7},
}
