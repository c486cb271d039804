"""The portal's scripts and styles: built from `portal/` into `src/hansa/portal/static`, or with `--check` compared.

Needs npm. Packages come from the lock file and are put into `.cache/portal`, never into the checkout.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "portal"
STATIC = ROOT / "src" / "hansa" / "portal" / "static"
CACHE = ROOT / ".cache" / "portal"
_COPIED = ("package.json", "package-lock.json", "tsconfig.json")


def packages() -> Path:
    """A folder with the sources and `node_modules`; installed anew when the lock file has changed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    lock, stamp = (SOURCE / "package-lock.json").read_bytes(), CACHE / "installed.json"
    for name in _COPIED:
        shutil.copy(SOURCE / name, CACHE / name)
    shutil.rmtree(CACHE / "src", ignore_errors=True)
    shutil.copytree(SOURCE / "src", CACHE / "src")
    if not stamp.exists() or stamp.read_bytes() != lock:
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
        stamp.write_bytes(lock)
    return CACHE


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def build(target: Path) -> None:
    """Check the types, then bundle."""
    binaries = packages() / "node_modules" / ".bin"
    run(str(binaries / "tsc"), "--project", ".")
    esbuild = str(binaries / "esbuild")
    common = ("--minify", "--log-level=warning", "--legal-comments=none")
    script = ("--bundle", "--format=esm", "--target=es2022", f"--outfile={target / 'portal.js'}")
    run(esbuild, "src/main.ts", *common, *script)
    run(esbuild, "src/portal.css", *common, f"--outfile={target / 'portal.css'}")
    for name in ("icons.svg", "icon.svg"):
        shutil.copy(SOURCE / "src" / name, target / name)


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: portal.py [--check]", file=sys.stderr)
        return 2
    if shutil.which("npm") is None:
        print("npm is needed, of Debian's package npm", file=sys.stderr)
        return 3
    if not arguments:
        STATIC.mkdir(exist_ok=True)
        build(STATIC)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        made = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
    kept = {file.name: file.read_bytes() for file in STATIC.iterdir()}
    wrong = sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))
    if wrong:
        print(f"not what portal/ makes: {', '.join(wrong)}; run: .venv/bin/python tools/portal.py", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
