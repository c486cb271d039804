"""A small server with the routes that the client uses, in a thread: jobs run as processes, one after another.

It also misbehaves on demand: ``drop_next`` answers by closing the connection, ``busy_next`` with 503.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import json
import os
import subprocess
import tempfile
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "the-token"


def now() -> str:
    return datetime.now(UTC).isoformat()


def fill(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


class State:
    """What the server knows, and what tests look at afterwards."""

    def __init__(self) -> None:
        self.jobs: dict[int, dict[str, Any]] = {}
        self.keys: dict[str, int] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.uploads: list[str] = []
        self.limits: dict[str, int] = {"file_bytes": 1_000_000, "job_bytes": 5_000_000, "job_files": 100}
        self.drop_next: list[str] = []
        self.drop_after: list[str] = []
        self.busy_next: list[str] = []
        self.hold_jobs = False
        self.changed = threading.Condition()
        self.lying_paths: list[str] = []
        self.chunk = 65536

    def submit(self, spec: dict[str, Any], key: str) -> dict[str, Any]:
        with self.changed:
            if key in self.keys:
                return self.jobs[self.keys[key]]
            number = len(self.jobs) + 1
            self.keys[key] = number
            need = spec.get("requirements", {})
            job = {
                "spec": spec,
                "logs": [],
                "tasks": [],
                "files": [],
                "shown": {
                    "number": number,
                    "id": f"job_{number}",
                    "name": spec.get("name"),
                    "owner": "me",
                    "vo": None,
                    "status": status("waiting", "job.queued", "Waits for a free core at local."),
                    "counts": dict.fromkeys(("running", "done", "failed", "killed"), 0) | {"waiting": spec["count"]},
                    "command": spec["command"],
                    "array": spec["array"],
                    "first": spec["first"],
                    "count": spec["count"],
                    "names": spec["names"],
                    "requirements": {
                        "cores": need.get("cores") or 1,
                        "memory_mib": need.get("memory_mib") or 1024,
                        "gpus": need.get("gpus", 0),
                        "wall_time_s": need.get("wall_time_s") or 3600,
                        "site": need.get("site"),
                    },
                    "retries": spec["retries"],
                    "priority": spec["priority"],
                    "setup": spec.get("setup"),
                    "input_files": len(spec["inputs"]),
                    "input_bytes": sum(file["size"] for file in spec["inputs"]),
                    "outputs": spec["outputs"],
                    "created": now(),
                    "version": 1,
                },
            }
            self.jobs[number] = job
        threading.Thread(target=self.work, args=(job,), daemon=True).start()
        return job

    def touch(self, job: dict[str, Any], **changes: Any) -> None:
        with self.changed:
            job["shown"] = {**job["shown"], **changes, "version": job["shown"]["version"] + 1}
            self.changed.notify_all()

    def work(self, job: dict[str, Any]) -> None:
        while self.hold_jobs:
            time.sleep(0.01)
        self.touch(job, status=status("running", "job.running", "Runs."), started=now())
        shown, spec = job["shown"], job["spec"]
        code = 0
        counts = dict(shown["counts"])
        for position in range(spec["count"]):
            code = self.run_task(job, spec, position)
            counts["waiting"] -= 1
            counts["failed" if code else "done"] += 1
            self.touch(job, counts=dict(counts))
        failed = counts["failed"]
        self.touch(
            job,
            status=status("failed", "job.failed", f"{failed} of {spec['count']} tasks failed.")
            if failed
            else status("done", "job.done", "All is done."),
            ended=now(),
            exit_code=None if spec["array"] else code,
        )

    def run_task(self, job: dict[str, Any], spec: dict[str, Any], position: int) -> int:
        index = spec["first"] + position
        row = spec["rows"][position] if spec.get("rows") else {"values": [], "inputs": []}
        values = dict(zip(spec["names"], row["values"], strict=True))
        known = {"i": str(index), "job": str(job["shown"]["number"])} | values if spec["array"] else {}
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            before = set()
            for file in [*spec["inputs"], *row["inputs"]]:
                target = root / file["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.blobs[file["digest"]])
                target.chmod(0o755 if file.get("executable") else 0o644)
                before.add(file["path"])
            env = os.environ | {name: fill(value, known) for name, value in spec["env"].items()}
            command = [fill(word, known) for word in spec["command"]]
            try:
                done = subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False)
                code, message, out, err = done.returncode, "", done.stdout, done.stderr
            except OSError as error:
                code, message, out, err = 127, f"{command[0]}: {error.strerror}", b"", b""
            if code < 0:
                code = 128 - code
            self.keep_logs(job, index, out, err)
            fields = None
            for name in sorted(glob.glob("**", root_dir=folder, recursive=True)):  # noqa: PTH207
                path = root / name
                if path.is_file() and name not in before:
                    content = path.read_bytes()
                    digest = "sha256:" + hashlib.sha256(content).hexdigest()
                    self.blobs[digest] = content
                    executable = bool(path.stat().st_mode & 0o100)
                    item = {"index": index, "path": name, "digest": digest, "size": len(content)}
                    job["files"].append(item | {"executable": executable})
                    if name == "result.json":
                        fields = json.loads(content)
            for lie in self.lying_paths:
                digest = "sha256:" + hashlib.sha256(b"x").hexdigest()
                self.blobs[digest] = b"x"
                job["files"].append({"index": index, "path": lie, "digest": digest, "size": 1})
        job["tasks"].append(
            {
                "job": job["shown"]["number"],
                "index": index,
                "phase": "failed" if code else "done",
                "attempt": 1,
                "values": values,
                "exit_code": code,
                "message": message,
                "site": "local",
                "node": "here",
                "wall_s": 0.5,
                "cpu_s": 0.25,
                "memory_mib": 10.0,
                "fields": fields,
            }
        )
        return code

    def keep_logs(self, job: dict[str, Any], index: int, out: bytes, err: bytes) -> None:
        for stream, data in (("stdout", out), ("stderr", err)):
            for offset in range(0, len(data), self.chunk):
                piece = base64.b64encode(data[offset : offset + self.chunk]).decode()
                job["logs"].append({"index": index, "attempt": 1, "stream": stream, "offset": offset, "data": piece})


def status(phase: str, reason: str, message: str) -> dict[str, Any]:
    waiting_on = "hansa" if phase in ("waiting", "running") else "nobody"
    return {"phase": phase, "reason": reason, "message": message, "waiting_on": waiting_on, "since": now()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    state: State

    def log_message(
        self,
        format: str,  # noqa: A002
        *args: Any,
    ) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_any()

    def do_POST(self) -> None:
        self.handle_any()

    def do_PUT(self) -> None:
        self.handle_any()

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path).removeprefix("/api/v1")
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.state.requests.append((self.command, path))
        if self.must(self.state.drop_next, path):
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.must(self.state.busy_next, path):
            self.answer(503, problem(503, "kernel.busy", "Busy."), {"Retry-After": "0.05"})
            return
        if path != "/health" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, problem(401, "identity.no_token", "There is no token.", 3))
            return
        code, answer = self.route(path, query, body)
        if self.must(self.state.drop_after, path):
            self.close_connection = True
            return
        self.answer(code, answer)

    def must(self, wanted: list[str], path: str) -> bool:
        for prefix in wanted:
            if f"{self.command} {path}".startswith(prefix):
                wanted.remove(prefix)
                return True
        return False

    def answer(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def route(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        words = path.strip("/").split("/")
        if words[0] == "health":
            return 200, {"status": "ok", "version": "0", "limits": self.state.limits}
        if words[0] == "files":
            return self.files(words, body)
        if words[0] == "sites":
            return self.sites(words)
        if words[0] == "whoami":
            return 200, {"id": "usr_1", "issuer": "local", "sub": "me", "name": "Me", "operator": True}
        if words[0] != "jobs":
            return 404, problem(404, "kernel.not_found", f"Nothing at {path}.", 4)
        if len(words) == 1 and self.command == "POST":
            job = self.state.submit(json.loads(body), self.headers["Idempotency-Key"])
            return 201, job["shown"]
        if len(words) == 1:
            found = [job["shown"] for job in reversed(self.state.jobs.values())]
            found = [job for job in found if query.get("phase") in (None, job["status"]["phase"])]
            return 200, {"items": found[: int(query.get("limit", 100))], "next": None}
        chosen = self.state.jobs.get(int(words[1])) if words[1].isdigit() else None
        if chosen is None:
            return 404, problem(404, "jobs.not_found", f"There is no job {words[1]}.", 4)
        return self.job(chosen, words[2:], query, body)

    def files(self, words: list[str], body: bytes) -> tuple[int, Any]:
        if words[1] == "missing":
            keys = json.loads(body)["files"]
            return 200, {"missing": [k["digest"] for k in keys if k["digest"] not in self.state.blobs]}
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        if digest != words[1]:
            return 422, problem(422, "jobs.digest", "The content is not what its digest says.", 2)
        self.state.blobs[digest] = body
        self.state.uploads.append(digest)
        return 201, {}

    def sites(self, words: list[str]) -> tuple[int, Any]:
        site = {
            "name": "local",
            "kind": "local",
            "owner": "me",
            "status": status("up", "site.up", "Is up."),
            "capacity": {"cores": 2, "memory_mib": 4096, "gpus": [], "container_runtimes": ["podman"]},
        }
        if len(words) == 1:
            return 200, {"items": [site], "next": None}
        return (200, site) if words[1] == "local" else (404, problem(404, "sites.not_found", "No such site.", 4))

    def job(self, job: dict[str, Any], words: list[str], query: dict[str, str], body: bytes) -> tuple[int, Any]:
        verb = words[0] if words else ""
        if verb == "follow":
            return 200, self.follow(job, query)
        if verb == "tasks" and len(words) > 2:
            index, name = int(words[1]), "/".join(words[3:])
            file = next(f for f in job["files"] if (f["index"], f["path"]) == (index, name))
            return 200, self.state.blobs[file["digest"]]
        if verb == "tasks":
            items = [t for t in job["tasks"] if query.get("phase") in (None, t["phase"])]
            return 200, page(items, query)
        if verb == "files":
            return 200, page([f for f in job["files"] if query.get("task") in (None, str(f["index"]))], query)
        if verb == "logs":
            task = int(query.get("task", job["shown"]["first"]))
            pieces = [p for p in job["logs"] if (p["index"], p["stream"]) == (task, query["stream"])]
            return 200, b"".join(base64.b64decode(p["data"]) for p in pieces)
        if verb in ("kill", "retry"):
            job.setdefault(verb, []).append(json.loads(body))
            return 200, job["shown"]
        if verb == "explain":
            subject = f"job {job['shown']['number']}"
            return 200, {"subject": subject, "status": job["shown"]["status"], "lines": ["It is as it is."]}
        return 200, job["shown"]

    def follow(self, job: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        cursor = query.get("cursor") or "0.0"
        version, seen = (int(part) for part in cursor.split("."))
        deadline = time.monotonic() + float(query.get("wait_s", 0))
        with self.state.changed:
            while job["shown"]["version"] <= version and len(job["logs"]) <= seen:
                left = deadline - time.monotonic()
                if left <= 0 or not self.state.changed.wait(left):
                    break
            logs = [] if query.get("logs") == "false" else job["logs"][seen : seen + 2]
            shown = job["shown"]
        return {"job": shown, "logs": logs, "cursor": f"{shown['version']}.{seen + len(logs)}"}


def page(items: list[Any], query: dict[str, str]) -> dict[str, Any]:
    start, limit = int(query.get("after") or 0), min(int(query.get("limit") or 50), 50)
    end = start + limit
    return {"items": items[start:end], "next": str(end) if end < len(items) else None}


def problem(code: int, name: str, detail: str, exit_code: int = 6) -> dict[str, Any]:
    return {
        "type": f"https://hansa.example/errors/{name}",
        "title": detail,
        "status": code,
        "detail": detail,
        "code": name,
        "hint": "Look at: hansa job list",
        "exit_code": exit_code,
    }


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 50

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Fake:
    """The running server."""

    def __init__(self, port: int = 0, state: State | None = None) -> None:
        self.state = state or State()
        handler = type("BoundHandler", (Handler,), {"state": self.state})
        self.server = Server(("127.0.0.1", port), handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
