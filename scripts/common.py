"""What the scripts share: where things are, how models are named, and reading and writing tensors."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("FCC_CACHE", ROOT / ".cache"))
MODELS = CACHE / "models"
EXPECTED = CACHE / "expected"
NODE = CACHE / "node"
FIXTURES = ROOT / "fixtures"


def fcc_binary() -> str:
    """The fcc to test: $FCC, else the release build, else the debug build."""
    given = os.environ.get("FCC")
    candidates = [given] if given else [ROOT / "target/release/fcc", ROOT / "target/debug/fcc"]
    for candidate in candidates:
        if Path(candidate).is_file():
            return str(candidate)
    sys.exit(f"no fcc at {', '.join(map(str, candidates))}: run `cargo build --release -p fcc`, or set FCC")


def write_file(path: Path, data: bytes) -> None:
    """Writes beside the target and renames, so that an interrupted run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_npz(path: Path, arrays: dict) -> None:
    """Writes an uncompressed npz whose keys may hold any character (numpy's savez takes keywords)."""
    import io
    import zipfile

    import numpy as np

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # fixed date: the same arrays give the same bytes
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array, order="C"), allow_pickle=False)
            archive.writestr(member, content.getvalue())
    write_file(path, buffer.getvalue())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_json(path: Path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_json(path: Path, value) -> None:
    write_file(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
