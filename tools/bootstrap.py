"""Prepares `.venv` of this checkout: finds or fetches `uv`, then installs what `uv.lock` says.

    python3 tools/bootstrap.py [--extra NAME]... [--group NAME]...

Needs only a Python with its standard library: no pip, no venv, no ensurepip (Debian's python3 has none of them),
and no rights beyond writing to the checkout. `uv` is taken from PATH if it is recent enough, else from
`.cache/tools/`, else downloaded as a wheel from the Python package index and checked against the sha256 below.

Honoured: `UV_DEFAULT_INDEX`, `UV_INDEX_URL`, `PIP_INDEX_URL`, `SSL_CERT_FILE`, `PIP_CERT`, and `index-url` and `cert`
of pip's configuration files. Several runs at once wait for each other. A run with nothing to do takes 0.1 s.

This file parses on Python 3.8 and later, so that an old Python gets a sentence and not a syntax error.
"""

from __future__ import annotations

import argparse
import base64
import configparser
import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Dict, Iterator, List, NoReturn, Optional, Tuple

try:
    import fcntl
except ImportError:  # not a POSIX system
    sys.exit("bootstrap: Hansa's development tools need Linux or macOS (on Windows: WSL).")

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"

PYTHON_MINIMUM = (3, 11)
UV_MINIMUM = (0, 9, 0)
UV_PINNED = "0.13.9"
UV_WHEELS = {  # (system, machine, libc) -> the wheel's platform tag, its sha256. From the index's own listing.
    ("linux", "x86_64", "glibc"): (
        "manylinux_2_17_x86_64.manylinux2014_x86_64",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    ("linux", "x86_64", "musl"): (
        "musllinux_1_1_x86_64",
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
    ),
    ("linux", "aarch64", "any"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
    ),
    ("darwin", "x86_64", "any"): (
        "macosx_10_12_x86_64",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
    ("darwin", "arm64", "any"): (
        "macosx_11_0_arm64",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
}
PUBLIC_INDEX = "https://pypi.org/simple"
TIMEOUT_S = 60
TRIES = 3


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--extra", action="append", default=[], metavar="NAME", help="an extra of pyproject.toml")
    options.add_argument("--group", action="append", default=[], metavar="NAME", help="a dependency group of it")
    options.add_argument("--fetch-uv", action="store_true", help="ignore a uv on PATH")
    chosen = options.parse_args()
    wanted = [part for name in sorted(set(chosen.extra)) for part in ("--extra", name)]
    wanted += [part for name in sorted(set(chosen.group)) for part in ("--group", name)]

    if is_current(wanted):
        return
    python = find_python()
    with locked(CACHE / "bootstrap.lock"):
        if is_current(wanted):  # another run did it while this one waited
            return
        sync(find_uv(ignore_path=chosen.fetch_uv), python, wanted)
        write_stamp(wanted)


def fail(message: str) -> NoReturn:
    sys.exit("bootstrap: " + message)


# --- the stamp: what has been installed ---------------------------------------------------------------------


def stamp_path(wanted: List[str]) -> Path:
    """One stamp per set of extras and groups: they add up in one `.venv` and do not undo each other."""
    place = [str(ROOT), *wanted]  # scripts in .venv hold its absolute path
    return VENV / (stamp_prefix() + hashlib.sha256(repr(place).encode()).hexdigest()[:16])


def stamp_prefix() -> str:
    """Changes with what is locked."""
    content = hashlib.sha256((ROOT / "uv.lock").read_bytes() + (ROOT / "pyproject.toml").read_bytes())
    return ".synced-" + content.hexdigest()[:16] + "-"


def is_current(wanted: List[str]) -> bool:
    return (VENV / "bin" / "python").exists() and stamp_path(wanted).exists()


def write_stamp(wanted: List[str]) -> None:
    stamp_path(wanted).write_text(" ".join(wanted) + "\n", encoding="utf-8")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("bootstrap: waiting for another run in this checkout …", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# --- Python -------------------------------------------------------------------------------------------------


def find_python() -> str:
    """The one that `.venv` has, else the running one if it is recent enough, else the newest `python3.N` on PATH."""
    present = VENV / "bin" / "python"
    if present.exists() and can_run(str(present)):
        return str(present)  # another one would throw away what is installed
    if sys.version_info[:2] >= PYTHON_MINIMUM:
        return sys.executable
    for minor in range(20, PYTHON_MINIMUM[1] - 1, -1):
        found = shutil.which("python3.%d" % minor)
        if found and can_run(found):
            return found
    fail(
        "Hansa needs Python {}.{} or newer; {} is {}. Install a newer one and run this again:\n"
        "  Debian 12, Ubuntu 24.04 and newer:  apt-get install python3\n"
        "  Ubuntu 22.04:                       apt-get install python3.11\n"
        "  Enterprise Linux 9:                 dnf install python3.11\n"
        "  macOS:                              brew install python@3.12".format(
            PYTHON_MINIMUM[0], PYTHON_MINIMUM[1], sys.executable, platform.python_version()
        )
    )


def can_run(python: str) -> bool:
    """Whether it starts (a pyenv shim may be on PATH for a version that is not active) and is recent enough."""
    question = "import sys; sys.exit(sys.version_info[:2] < (%d, %d))" % PYTHON_MINIMUM
    return subprocess.run([python, "-c", question], capture_output=True, check=False).returncode == 0


# --- uv -----------------------------------------------------------------------------------------------------


def find_uv(ignore_path: bool) -> str:
    on_path = None if ignore_path else shutil.which("uv")
    if on_path and (uv_version(on_path) or ()) >= UV_MINIMUM:
        return on_path
    cached = CACHE / "tools" / ("uv-%s-%s" % (UV_PINNED, platform.machine())) / "uv"
    if uv_version(str(cached)) is None:
        fetch_uv(cached)
    return str(cached)


def uv_version(uv: str) -> Optional[Tuple[int, ...]]:
    try:
        said = subprocess.run([uv, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"uv (\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in match.groups()) if match else None


def fetch_uv(target: Path) -> None:
    """Downloads the wheel, verifies it, and puts the one binary in its place in one step."""
    tag, digest = wheel_for_this_machine()
    name = "uv-{}-py3-none-{}.whl".format(UV_PINNED, tag)
    print("bootstrap: fetching uv {} from {} …".format(UV_PINNED, without_password(index_url())), flush=True)
    wheel = download(file_url(index_url(), name))
    if hashlib.sha256(wheel).hexdigest() != digest:
        fail(
            "{} from {} is not the file that this checkout expects (sha256 differs); not used.".format(
                name, without_password(index_url())
            )
        )
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        binary = archive.read("uv-{}.data/scripts/uv".format(UV_PINNED))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=str(target.parent))
    with os.fdopen(handle, "wb") as out:
        out.write(binary)
    os.chmod(temporary, 0o755)
    os.replace(temporary, str(target))
    if uv_version(str(target)) is None:
        fail("{} does not run on this machine. Install uv in another way and put it on PATH.".format(target))


def wheel_for_this_machine() -> Tuple[str, str]:
    system, machine = platform.system().lower(), platform.machine()
    machine = "aarch64" if (system, machine) == ("linux", "arm64") else machine
    libc = "glibc" if platform.libc_ver()[0] == "glibc" else "musl"
    for key in ((system, machine, libc), (system, machine, "any")):
        if key in UV_WHEELS:
            return UV_WHEELS[key]
    fail(
        "no uv is known for {} on {}. Install uv {} or newer and put it on PATH.".format(
            system, machine, ".".join(map(str, UV_MINIMUM))
        )
    )


# --- the package index --------------------------------------------------------------------------------------


def pip_setting(name: str) -> Optional[str]:
    """A value of pip's configuration files; the user's wins over the system's."""
    home = Path(os.path.expanduser("~"))
    files = ["/etc/xdg/pip/pip.conf", "/etc/pip.conf", home / ".pip" / "pip.conf"]
    files.append(Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf")
    if os.environ.get("PIP_CONFIG_FILE"):
        files.append(os.environ["PIP_CONFIG_FILE"])
    parser = configparser.RawConfigParser()
    with contextlib.suppress(configparser.Error, OSError):
        parser.read([str(file) for file in files])
    for section in ("install", "global"):
        value = parser.get(section, name, fallback="").strip()
        if value:
            return value
    return None


def configured_index() -> Optional[str]:
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if os.environ.get(variable):
            return os.environ[variable].split("=", 1)[-1] if variable == "UV_DEFAULT_INDEX" else os.environ[variable]
    return pip_setting("index-url")


def index_url() -> str:
    return (configured_index() or PUBLIC_INDEX).rstrip("/")


def certificates() -> Optional[str]:
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT") or pip_setting("cert")


def file_url(index: str, name: str) -> str:
    """Where the index says that the file is. JSON (PEP 691) is asked for; an index that only has HTML is read too."""
    page = index + "/uv/"
    listing = download(page, accept="application/vnd.pypi.simple.v1+json, text/html;q=0.1").decode("utf-8", "replace")
    if listing.lstrip().startswith("{"):
        urls: Dict[str, str] = {file["filename"]: file["url"] for file in json.loads(listing)["files"]}
    else:
        links = [link.split("#")[0].replace("&amp;", "&") for link in re.findall(r'href="([^"]+)"', listing)]
        urls = {urllib.parse.unquote(link.rsplit("/", 1)[-1]): link for link in links}
    if name not in urls:
        fail("{} has no {}. Install uv in another way and put it on PATH.".format(without_password(page), name))
    found = urllib.parse.urljoin(page, urls[name])
    if urllib.parse.urlsplit(found).hostname == urllib.parse.urlsplit(page).hostname:
        found = with_login_of(page, found)
    return found


def download(url: str, accept: str = "*/*") -> bytes:
    context = ssl.create_default_context(cafile=certificates())
    address, login = split_login(url)
    headers = {"Accept": accept, "User-Agent": "hansa-bootstrap"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    for attempt in range(1, TRIES + 1):
        try:
            request = urllib.request.Request(address, headers=headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:
                content = answer.read()
                return content if isinstance(content, bytes) else b""
        except (OSError, urllib.error.URLError) as error:
            is_refusal = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == TRIES or is_refusal:
                fail(
                    "could not fetch {}: {}.\nIs there a network? Behind a mirror, set UV_DEFAULT_INDEX; for a "
                    "certificate authority of your own, SSL_CERT_FILE. Or install uv and put it on PATH.".format(
                        without_password(url), error
                    )
                )
            time.sleep(attempt)
    raise AssertionError


def split_login(url: str) -> Tuple[str, Optional[str]]:
    parts = urllib.parse.urlsplit(url)
    if "@" not in parts.netloc:
        return url, None
    login, host = parts.netloc.rsplit("@", 1)
    return parts._replace(netloc=host).geturl(), urllib.parse.unquote(login)


def with_login_of(page: str, url: str) -> str:
    login = urllib.parse.urlsplit(page).netloc.rpartition("@")[0]
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=login + "@" + parts.netloc).geturl() if login and "@" not in parts.netloc else url


def without_password(url: str) -> str:
    return split_login(url)[0]


# --- the environment ----------------------------------------------------------------------------------------


def sync(uv: str, python: str, wanted: List[str]) -> None:
    """`--inexact`: what another set of extras or groups has installed stays."""
    command = [uv, "sync", "--frozen", "--inexact", "--no-progress", "--python", python] + wanted
    environment = uv_environment()
    for stamp in VENV.glob(".synced-*"):
        if not stamp.name.startswith(stamp_prefix()):
            stamp.unlink()  # what it tells will no longer be true
    print("bootstrap: installing into .venv ({}) …".format(" ".join(wanted) or "no extras"), flush=True)
    started = time.monotonic()
    status = subprocess.run(command + ["--quiet"], cwd=str(ROOT), env=environment, check=False).returncode
    if status != 0:
        fail("`uv sync` failed ({}); see above.".format(status))
    print("bootstrap: .venv is ready ({:.1f} s)".format(time.monotonic() - started), flush=True)


def uv_environment() -> Dict[str, str]:
    """What pip's settings say holds for uv too; uv brings no interpreter of its own."""
    environment = dict(os.environ)
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    environment["UV_PROJECT_ENVIRONMENT"] = str(VENV)
    environment.pop("VIRTUAL_ENV", None)
    index, ca_file = configured_index(), certificates()
    if index:
        environment.setdefault("UV_DEFAULT_INDEX", index)
    if ca_file:
        environment.setdefault("SSL_CERT_FILE", ca_file)
    else:
        environment.setdefault("UV_SYSTEM_CERTS", "true")  # an authority that the system trusts, uv trusts
    home_cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if "UV_CACHE_DIR" not in environment and not is_writable(home_cache):
        environment["UV_CACHE_DIR"] = str(CACHE / "uv")
    cache = Path(environment.get("UV_CACHE_DIR") or home_cache)
    if "UV_LINK_MODE" not in environment and existing(cache).stat().st_dev != ROOT.stat().st_dev:
        environment["UV_LINK_MODE"] = "copy"  # hard links cannot leave a file system
    return environment


def existing(path: Path) -> Path:
    return path if path.exists() else existing(path.parent)


def is_writable(path: Path) -> bool:
    return os.access(str(existing(path)), os.W_OK)


if __name__ == "__main__":
    main()
