"""Begin a method of one's own: `diffbench new` writes a working extension, its benchmark file and its test.

The templates are beside this module, one a kind; ``base.yaml.jinja`` has what all benchmark files share.
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from pathlib import Path

from diffbench.cli.command import argument, command
from diffbench.specs.errors import PlanError, shown

KINDS = ("solver", "process", "network", "objective", "restorer", "metric", "data", "denoiser")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@command(
    "extend",
    "new solver mine",
    argument("kind", choices=KINDS, help="what it will be"),
    argument("name", metavar="NAME", help="its name in benchmark files: small letters, digits, -"),
)
def new(options: argparse.Namespace) -> int:
    """Write a working extension of a kind, a benchmark that compares it with a baseline, and its test.

    They are NAME.py, NAME.yaml and test_NAME.py in the working directory; nothing is overwritten.
    """
    from diffbench.store import files

    texts = begun(options.kind, options.name)
    for name in texts:
        if Path(name).exists():
            raise PlanError(
                f"{shown(Path(name))} is there already: choose another name, or move it"
            )
    for name, text in texts.items():
        files.write(Path(name), text.encode())
    extension, benchmark, test = texts
    print(f"{extension}: change it; then diffbench conform {extension}, or pytest {test}")
    print(f"{benchmark}: snakemake --cores all --configfile {benchmark}")
    return 0


def begun(kind: str, name: str) -> dict[str, str]:
    """Return file name -> text of a new extension, of its benchmark file and of its test.

    Raises:
        PlanError: when the name cannot be one, or is that of a part of Python or of the package.
    """
    import jinja2

    module = name.replace("-", "_")
    if not NAME.fullmatch(name):
        raise PlanError(
            f"{name!r} cannot be a name: take small letters and digits, with - between words, such as my-{kind}"
        )
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module == "diffbench":
        raise PlanError(f"{name!r} is a name of Python's own: take another, such as my-{name}")
    if name in known(kind):
        raise PlanError(f"{name!r} is a {kind} of the package: take another, such as my-{name}")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("diffbench.cli"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    title = "".join(word.capitalize() for word in name.split("-"))
    values = {"kind": kind, "name": name, "file": module, "metric": module, "Class": title}
    templates = {
        f"{module}.py": f"{kind}.py.jinja",
        f"{module}.yaml": f"{kind}.yaml.jinja",
        f"test_{module}.py": "test.py.jinja",
    }
    return {
        file: environment.get_template(template).render(values)
        for file, template in templates.items()
    }


def known(kind: str) -> set[str]:
    """Return the names of a kind that the package has."""
    from diffbench.cli.look import registered

    plural = {"process": "processes", "metric": "measures", "data": "data"}
    return {name for name, _ in registered(plural.get(kind, f"{kind}s"))}
