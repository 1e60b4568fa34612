"""What the tables, figures and page of finished results cost, and how a page of 5,000 cells sorts in a browser.

Takes a finished results folder's benchmark file (default: config/digits.yaml), and makes its tables again three times.
The page of 5,000 cells repeats the rows of that page: 5,000 cells in its first table, 5,000 numbers in the long one.
The targets: 5 s of CPU time and 500 MB; pages under 10 MB; sorted within 500 ms.  The browser's part needs Chromium,
node and npm (`make test-system`).
"""

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import spend

from diffbench.plan.loading import load_plan
from diffbench.store import paths

CELLS = 5000
REPOSITORY = Path(__file__).resolve().parent.parent


def enlarged(page: str) -> str:
    """Return a page with its rows again and again, until there are enough."""
    before, _, rest = page.partition('id="data">')
    text, _, after = rest.partition("</script>")
    data = json.loads(text)
    numbers, jobs, products = data["numbers"], data["jobs"], data["products"]
    copies = -(-CELLS // len(numbers))
    data["numbers"] = [
        [*row[:-1], None if row[-1] is None else row[-1] + copy * len(jobs)]
        for copy in range(copies)
        for row in numbers
    ][:CELLS]
    data["jobs"] = [
        {**job, "made of": [index + copy * len(products) for index in job["made of"]]}
        for copy in range(copies)
        for job in jobs
    ]
    data["products"] = [
        {**each, "file": f"{copy}/{each['file']}"} for copy in range(copies) for each in products
    ]
    head, _, tail = before.partition("<tbody>")
    body, _, tail = tail.partition("</tbody>")
    rows = [f"{row}</tr>" for row in body.split("</tr>")[:-1]]
    wanted = -(-CELLS // rows[0].count("<td"))
    many = (rows * (wanted // len(rows) + 1))[:wanted]
    packed = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'{head}<tbody>{"".join(many)}</tbody>{tail}id="data">{packed}</script>{after}'


def main(config: str) -> None:
    command = [sys.executable, "-m", "diffbench", "table", "--config", config]
    spent = [spend(command)[1] for _ in range(3)]
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"diffbench table: {statistics.median(spent):.2f} CPU s (median of 3), {memory:.0f} MB at most"
    )
    page = paths.page(load_plan([Path(config)], {}, REPOSITORY).root)
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not (chromium and shutil.which("npm")):
        print("no Chromium or npm: sorting is not measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(REPOSITORY / "tests" / "web" / file, here)
        shutil.copy(Path(__file__).with_suffix(".mjs"), here)
        subprocess.run(["npm", "ci", "--no-fund", "--no-audit", "--silent"], cwd=here, check=True)
        large = here / "index.html"
        large.write_text(enlarged(page.read_text()))
        print(f"the page of {CELLS:,} cells: {large.stat().st_size / 1e6:.1f} MB")
        command = ["node", str(here / "page.mjs"), str(large), chromium]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for table, times in found.items():
        each = ", ".join(f"{time:.0f}" for time in times)
        print(f"sorting {table}: {statistics.median(times):.0f} ms (median of {each})")


if __name__ == "__main__":
    main(*(sys.argv[1:2] or ["config/digits.yaml"]))
