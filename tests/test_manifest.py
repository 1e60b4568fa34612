from diffbench.store import files
from diffbench.store.manifest import manifest

PRODUCTS = [
    "data/levels.npz",
    "data/spec.json",
    "data/manifest.json",
    "runs/vp/seed0/model.safetensors",
    "runs/vp/seed0/scores.json",
    "runs/vp/seed0/scores.spec.json",
    "runs/vp/seed0/samples/em-100/grid.png",
]
OTHERS = [
    "data/levels.run.json",
    "runs/vp/seed0/scores.run.json",
    "runs/vp/seed0/scores.partial.json",
    "runs/vp/seed0/.tmp.scores.json",
    ".state/abc/status.json",
    ".state/abc/state-000000001-0123456789abcdef.safetensors",
    "logs/train/vp/seed0.log",
    "benchmarks/train/vp/seed0.tsv",
    "tables/overview.csv",
    "tables/.complete",
]


def test_the_manifest_has_products_alone(tmp_path):
    for name in PRODUCTS + OTHERS:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    found = manifest(tmp_path)
    assert list(found) == sorted(PRODUCTS)
    assert found["data/levels.npz"] == files.sha256(tmp_path / "data/levels.npz")


def test_a_variant_may_be_called_logs(tmp_path):
    path = tmp_path / "runs" / "logs" / "seed0" / "model.safetensors"
    files.write(path, b"weights")
    assert list(manifest(tmp_path)) == ["runs/logs/seed0/model.safetensors"]


def test_an_empty_or_missing_folder_has_an_empty_manifest(tmp_path):
    assert manifest(tmp_path / "nowhere") == manifest(tmp_path) == {}
