"""What a user does on a Slurm cluster, with the real one: through pilots, by the command line. Nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from tests.integration.batch.conftest import LEFT_IN_PEACE_S, Cluster, _scancel, desk_of, site_file
from tests.support.serverprocess import ServerProcess, eventually
from tests.support.slurm import Slurm

pytestmark = pytest.mark.timeout(900)  # real daemons, on a machine that may have other things to do

TLS = {"certificate": "chain", "key": "key"}
ALL = "pending,running,completing"


def test_a_command_runs_there_and_its_output_and_files_come_back(cluster: Cluster) -> None:
    said = cluster.hansa("run", "--site", "here", "--", "/bin/sh", "-c", "hostname; echo 5 > out")
    assert said.out.strip()
    (folder,) = cluster.desk.folder.glob("hansa-*")
    assert (folder / "out").read_text() == "5\n"


def test_the_batch_job_says_whose_it_is_and_the_job_shows_its_script(cluster: Cluster) -> None:
    cluster.free()
    job = cluster.job("--site", "here", "--", "true")
    assert cluster.end(job)["exit_code"] == 0
    pilot, *_ = cluster.hansa("job", "show", str(job), "--script", "-o", "json").json()
    assert pilot["batch_id"].isdecimal()
    assert pilot["script"].startswith("# sbatch ")
    shown = cluster.slurm.show(int(pilot["batch_id"]))
    assert f"Comment=hansa job={job} user=" in shown
    assert f"job={job}" in shown
    assert f"pilot={pilot['id']}" in shown
    text = cluster.hansa("job", "show", str(job)).out
    assert f"batch job {pilot['batch_id']} at here" in text
    assert "exec " in text


def test_a_thousand_tasks_each_once(cluster: Cluster) -> None:
    cluster.free()
    job = cluster.job("--site", "here", "--array", "1-1000", "--", "/bin/sh", "-c", "echo {i}; [ {i} != 500 ]")
    ended = cluster.end(job, 300)
    assert ended["counts"] | {"done": 999, "failed": 1} == ended["counts"]
    asyncio.run(cluster.server.check_books())


def test_gpus_are_asked_of_slurm_and_given_to_tasks(cluster: Cluster) -> None:
    cluster.free()
    said = cluster.hansa(
        "run", "--site", "here", "--gpus", "2", "--", "/bin/sh", "-c", "echo $CUDA_VISIBLE_DEVICES", code=None
    )
    assert (said.code, said.out.strip()) == (0, "0,1")
    refused = cluster.hansa("run", "--site", "here", "--gpus", "3", "--", "true", code=None)
    assert "3 GPUs asked, 2 there" in refused.err


def test_an_mpi_job_is_one_batch_job_of_just_its_nodes(cluster: Cluster) -> None:
    cluster.free()
    command = "srun sh -c 'echo $SLURMD_NODENAME' | sort"
    said = cluster.hansa(
        "run", "--site", "here", "--nodes", "2", "--cores", "3", "--memory", "500M", "--time", "5m",
        "--", "/bin/sh", "-c", command,
    )  # fmt: skip
    assert said.out.split() == ["n1"] * 3 + ["n2"] * 3  # a process for each core
    pilot = cluster.pilots()[0]
    assert (pilot["nodes"], pilot["cores"], pilot["memory_mib"]) == (2, 3, 500)
    shown = cluster.slurm.show(int(pilot["batch_id"]))
    assert "NumNodes=2 NumCPUs=6" in shown
    refused = cluster.hansa("run", "--site", "here", "--nodes", "3", "--", "true", code=None)
    assert "3 nodes asked, 2 there" in refused.err


def test_a_task_that_asks_for_a_whole_node_has_one_to_itself(cluster: Cluster) -> None:
    cluster.free()
    meet = cluster.desk.folder / "whole"
    meet.mkdir()
    # Both run at the same time, so that neither can have had the other's node after it.
    script = f"touch {meet}/{{i}}; while [ $(ls {meet} | wc -l) != 2 ]; do sleep 0.1; done; "
    script += 'echo "$HANSA_CORES $SLURM_JOB_ID"'
    job = cluster.job("--site", "here", "--whole-node", "--array", "0-1", "--time", "5m", "--", "/bin/sh", "-c", script)
    assert cluster.end(job)["counts"]["done"] == 2
    nodes = set()
    for index in range(2):
        cores, batch = cluster.hansa("job", "logs", f"{job}.{index}").out.split()
        assert cores == "32"
        shown = cluster.slurm.show(int(batch))
        nodes.add(next(word for word in shown.split() if word.startswith("NodeList=")))
        assert "NumNodes=1 NumCPUs=32 NumTasks=1 CPUs/Task=32" in shown
        assert "OverSubscribe=NO" in shown
        assert "MinMemoryNode=0" in shown, "all that the node has"
    assert nodes == {"NodeList=n1", "NodeList=n2"}, "the one without GPUs, too"


def test_one_batch_job_takes_a_node_and_packs_tasks_into_it(cluster: Cluster) -> None:
    """Three tasks are there when it starts, five come later: it has room for all, and nobody else gets the node."""
    cluster.free()
    meet = cluster.desk.folder / "packed"
    meet.mkdir()
    script = f"echo $HANSA_PILOT > {meet}/{{job}}.{{i}}; while [ $(ls {meet} | wc -l) != 8 ]; do sleep 0.1; done"
    words = ["--site", "here", "--cores", "4", "--memory", "500M", "--batch", "exclusive"]
    first = cluster.job(*words, "--array", "0-2", "--", "/bin/sh", "-c", script)
    eventually(lambda: cluster.server.job(first)["counts"]["running"] == 3, "three run")
    second = cluster.job(*words, "--array", "0-4", "--", "/bin/sh", "-c", script)
    assert cluster.end(first)["counts"]["done"] == 3
    assert cluster.end(second)["counts"]["done"] == 5
    (name,) = {path.read_text().strip() for path in meet.iterdir()}
    pilot = next(one for one in cluster.pilots() if one["id"] == name)
    assert (pilot["nodes"], pilot["cores"]) == (1, 32)
    shown = cluster.slurm.show(int(pilot["batch_id"]))
    assert "NumNodes=1 NumCPUs=32" in shown
    assert "OverSubscribe=NO" in shown
    asyncio.run(cluster.server.check_books())


def test_a_task_that_wants_a_node_to_itself_is_one_batch_job_of_that_node(cluster: Cluster) -> None:
    cluster.free()
    script = "squeue -h -t running -o %N; echo $SLURM_CPUS_ON_NODE"
    words = ["--whole-node", "--cores", "2", "--memory", "500M", "--time", "5m"]
    job = cluster.job("--site", "here", "--array", "0-2", *words, "--", "/bin/sh", "-c", script)
    beside = cluster.job("--site", "here", "--batch", "nice=5", "--array", "0-1", "--cores", "2", "--", "sleep", "1")
    assert cluster.end(job)["counts"]["done"] == 3
    assert cluster.end(beside)["counts"]["done"] == 2
    with cluster.server.client() as client:
        pilots = client.get(f"/jobs/{job}/pilots").raise_for_status().json()["items"]
    pilots = [one for one in pilots if one["batch_id"]]
    assert pilots
    for pilot in pilots:
        shown = cluster.slurm.show(int(pilot["batch_id"]))
        assert " NumCPUs=32 NumTasks=1 CPUs/Task=32 " in shown, shown  # nodes: 1, or 1-1 while it waits for its turn
        assert "OverSubscribe=NO" in shown, "nobody else's job is beside it"
        assert pilot["cores"] == 32
    for index in range(3):
        *nodes, own = cluster.hansa("job", "logs", f"{job}.{index}").out.splitlines()
        assert own == "32", "it has all of its node"
        assert len(nodes) == len(set(nodes)), "no two batch jobs are on one node"


def test_options_of_the_batch_system_reach_it_and_bad_ones_are_refused_before(cluster: Cluster) -> None:
    cluster.free()
    options = ["partition=urgent", "nice=7", "account=physics", "constraint=fast"]
    job = cluster.job("--site", "here", *(word for one in options for word in ("--batch", one)), "--", "true")
    assert cluster.end(job)["exit_code"] == 0
    shown = cluster.slurm.show(int(cluster.pilots()[0]["batch_id"]))
    for said in ("Partition=urgent", "Nice=7", "Account=physics", "Features=fast"):
        assert said in shown
    refused = cluster.hansa("run", "--batch", "output=/etc/passwd", "--", "true", code=None)
    assert refused.code == 125
    assert "is none that jobs may give" in refused.err


def test_a_job_that_is_killed_ends_in_slurm_too(cluster: Cluster) -> None:
    cluster.free()
    job = cluster.job("--site", "here", "--nodes", "2", "--", "sleep", "1000")
    eventually(lambda: cluster.server.job(job)["counts"]["running"], "it runs")
    cluster.hansa("job", "kill", str(job))
    assert cluster.end(job)["status"]["phase"] == "killed"
    cluster.free()


def test_a_queue_that_does_not_move_says_why_in_slurms_words_and_is_given_up_when_nobody_waits(
    cluster: Cluster,
) -> None:
    cluster.free()
    job = cluster.job("--site", "here", "--batch", "partition=closed", "--", "true")

    def reason() -> bool:
        return "PartitionDown" in cluster.hansa("job", "explain", str(job)).out

    eventually(reason, "the reason of Slurm is told", pause_s=0.5)
    assert cluster.slurm.jobs("pending")
    cluster.hansa("job", "kill", str(job))
    eventually(lambda: not cluster.slurm.jobs(ALL), "the batch job is gone", pause_s=0.5)


def test_drain_and_a_ban_reach_pilots_that_slurm_runs(cluster: Cluster) -> None:
    """What runs goes on to its end, and ends its batch job; what waits is given to nobody, and nothing is sent."""
    cluster.free()
    go, began = cluster.desk.folder / "steered-go", cluster.desk.folder / "steered-began"
    script = f"touch {began}; while [ ! -e {go} ]; do sleep 0.1; done"
    running = cluster.job("--site", "here", "--", "/bin/sh", "-c", script)
    eventually(began.exists, "it runs")
    cluster.hansa("site", "drain", "here", "--why", "New disks")
    try:

        def told() -> bool:
            said = {one["status"]["message"] for one in cluster.pilots() if one["status"]["phase"] == "running"}
            return bool(said) and all("here takes no new work: New disks." in one for one in said)

        eventually(told, "its pilots are told")
        sent = set(cluster.slurm.jobs("all"))
        waiting = cluster.job("--site", "here", "--", "true")

        def waits() -> bool:
            status = cluster.server.job(waiting)["status"]
            return status["waiting_on"] == "site" and "here takes no new work: New disks." in status["message"]

        eventually(waits, "what waits says why")
        go.touch()
        assert cluster.end(running)["counts"]["done"] == 1
        cluster.free()
        assert set(cluster.slurm.jobs("all")) <= sent, "no batch job was sent meanwhile"
        assert cluster.server.job(waiting)["counts"]["waiting"] == 1
        cluster.hansa("site", "ban", "here", "--user", getpass.getuser(), "--why", "Mines coins")
    finally:
        cluster.hansa("site", "resume", "here")
    try:
        banned = "here has banned you: Mines coins."
        eventually(lambda: banned in cluster.server.job(waiting)["status"]["message"], "the ban holds it", pause_s=0.5)
        refused = cluster.hansa("run", "--site", "here", "--", "true", code=None)
        assert (refused.code, banned.rstrip(".") in refused.err) == (125, True), refused.err
        assert set(cluster.slurm.jobs("all")) <= sent
    finally:
        cluster.hansa("site", "unban", "here", "--user", getpass.getuser())
    assert cluster.end(waiting)["counts"]["done"] == 1


def test_a_node_that_dies_takes_no_task_with_it(cluster: Cluster) -> None:
    cluster.free()
    slurm = cluster.slurm
    slurm.run("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    try:
        mark = cluster.desk.folder / "began"
        script = f"[ -e {mark} ] && exec echo again; touch {mark}; sleep 1000"
        job = cluster.job("--site", "here", "--", "/bin/sh", "-c", script)
        eventually(mark.exists, "it runs")
        slurm.run("scontrol", "update", "nodename=n2", "state=resume")
        slurm.kill_node("n1")
        ended = cluster.end(job)
        assert ended["exit_code"] == 0
        assert cluster.hansa("job", "logs", str(job)).out == "again\n"
    finally:
        slurm.run("scontrol", "update", "nodename=n2", "state=resume", check=False)
        slurm.start_node("n1")
        eventually(lambda: set(slurm.states().values()) <= {"idle", "mix", "alloc"}, "all nodes are back")


def test_a_time_limit_and_preemption_are_no_failures(cluster: Cluster) -> None:
    """One batch job meets its time limit, one is pre-empted and cancelled, one pre-empted and queued again by Slurm.

    Each said goodbye in order; each task runs again elsewhere, though it has no retries and ends with an error.
    """
    cluster.free()
    began = cluster.desk.folder / "taken-away"
    began.mkdir()
    script = f"echo {{i}} >> {began}/$NAME; [ $(wc -l < {began}/$NAME) = 1 ] || exit 0; trap 'exit 3' TERM; "
    script += "while :; do sleep 0.1; done"

    def begin(name: str, node: str) -> tuple[int, str]:
        words = ["--env", f"NAME={name}", "--array", "0-0", "--batch", f"nodelist={node}"]
        job = cluster.job("--site", "here", *words, "--", "/bin/sh", "-c", script)
        eventually((began / name).exists, f"{name} runs")

        def batch() -> str:
            with cluster.server.client() as client:
                pilots = client.get(f"/jobs/{job}/pilots").raise_for_status().json()["items"]
            busy = [one["batch_id"] for one in pilots if one["tasks"]]
            return str(busy[0] or "") if busy else ""

        return job, eventually(batch, "its batch job is known")

    def preempt() -> None:
        cluster.slurm.run("sbatch", "-p", "urgent", "--exclusive", "--nodelist=n2", "--output=/dev/null", "--wrap=true")

    late = begin("late", "n1")
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
    cluster.slurm.run("scontrol", "update", f"jobid={late[1]}", f"EndTime={soon}")
    first = begin("first", "n2")
    preempt()
    assert cluster.end(first[0])["counts"]["done"] == 1, cluster.hansa("job", "explain", str(first[0])).out
    again = begin("again", "n2")
    cluster.slurm.run("scontrol", "update", f"jobid={again[1]}", "requeue=1")
    preempt()
    said = {
        first: f"Slurm pre-empted it (job {first[1]})",
        late: f"Slurm ended it at its time limit (job {late[1]})",
        again: "",  # Slurm says nothing but that it waits: it was ended there for good
    }
    for (job, _), words in said.items():
        ended = cluster.end(job)
        assert ended["counts"] == {"waiting": 0, "running": 0, "done": 1, "failed": 0, "killed": 0}
        explained = cluster.hansa("job", "explain", f"{job}.0").out
        assert "Attempt 1 at here ended" in explained
        assert "preempted. " in explained
        eventually(
            lambda job=job, words=words: words in cluster.hansa("job", "explain", f"{job}.0").out,  # type: ignore[misc]
            "Slurm's reason is told",
            pause_s=0.5,
        )
    with cluster.server.client() as client:
        tasks = [client.get(f"/jobs/{job}/tasks").raise_for_status().json()["items"] for job, _ in (late, first, again)]
    attempts = {name: task["attempt"] for name, (task,) in zip(("late", "first", "again"), tasks, strict=True)}
    assert {path.name: len(path.read_text().splitlines()) for path in began.iterdir()} == attempts, "once an attempt"
    assert min(attempts.values()) >= 2, "each ran again"
    eventually(lambda: not cluster.slurm.jobs(ALL), "what Slurm had queued again is gone", pause_s=0.5)
    asyncio.run(cluster.server.check_books())


def test_a_pilot_that_slurm_queues_again_before_it_said_goodbye_is_not_waited_for(cluster: Cluster) -> None:
    """Its process cannot answer the signal and is killed; Slurm would start it anew in two minutes."""
    cluster.free()
    mark = cluster.desk.folder / "queued-again"
    script = f"echo {{i}} >> {mark}; [ $(wc -l < {mark}) = 1 ] || exit 0; sleep 1000"
    job = cluster.job("--site", "here", "--array", "0-0", "--batch", "nodelist=n2", "--", "/bin/sh", "-c", script)
    eventually(mark.exists, "it runs")
    eventually(lambda: cluster.server.job(job)["counts"]["running"], "its pilot has told so")
    pilot = next(one for one in cluster.pilots() if one["tasks"])
    batch = eventually(
        lambda: next(one["batch_id"] for one in cluster.pilots() if one["id"] == pilot["id"]), "its batch job is known"
    )
    (process,) = cluster.agents(pilot["id"])
    cluster.slurm.run("scontrol", "update", f"jobid={batch}", "requeue=1")
    cluster.slurm.run("sbatch", "-p", "urgent", "--exclusive", "--nodelist=n2", "--output=/dev/null", "--wrap=true")
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            process.suspend()  # again and again: Slurm wakes what it ends
            time.sleep(0.002)
    ended = cluster.end(job)
    assert ended["counts"]["done"] == 1
    assert len(mark.read_text().splitlines()) == 2
    (row,) = cluster.tasks(job)
    assert row["attempt"] == 2, "it had run: that was an attempt"
    lost = next(one for one in cluster.pilots() if one["id"] == pilot["id"])
    assert lost["status"]["reason"] == "pilots.stopped_by_site"
    if lost["status"]["phase"] == "lost":  # which it is, unless the test was too slow to hold it
        assert "queued it again" in lost["status"]["message"]
    eventually(lambda: not cluster.slurm.jobs(ALL), "what Slurm had queued again is gone", pause_s=0.5)
    asyncio.run(cluster.server.check_books())


def test_a_suspended_pilot_goes_on_and_the_pause_counts_for_no_limit(cluster: Cluster) -> None:
    cluster.free()
    mark, go = cluster.desk.folder / "paused", cluster.desk.folder / "paused-go"
    script = f"echo {{i}} >> {mark}; while [ ! -e {go} ]; do sleep 0.1; done"
    job = cluster.job("--site", "here", "--array", "0-0", "--time", "15s", "--", "/bin/sh", "-c", script)
    eventually(mark.exists, "it runs")
    batch = eventually(lambda: next((one["batch_id"] for one in cluster.pilots() if one["tasks"]), ""), "it is known")
    cluster.slurm.run("scontrol", "suspend", batch)
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + 16, "its wall time is over", pause_s=0.5)
    assert cluster.server.job(job)["counts"]["failed"] == 0
    cluster.slurm.run("scontrol", "resume", batch)
    go.touch()
    ended = cluster.end(job)
    assert ended["counts"]["done"] == 1, cluster.hansa("job", "explain", f"{job}.0").out
    assert len(mark.read_text().splitlines()) == 1
    asyncio.run(cluster.server.check_books())


def test_drained_nodes_finish_what_they_have_and_are_waited_for(cluster: Cluster) -> None:
    cluster.free()
    go = cluster.desk.folder / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.1; done; echo went"
    running = cluster.job("--site", "here", "--", "/bin/sh", "-c", script)
    eventually(lambda: cluster.server.job(running)["counts"]["running"], "it runs")
    cluster.slurm.run("scontrol", "update", "nodename=n[1-2]", "state=drain", "reason=test")
    try:
        waiting = cluster.job("--site", "here", "--batch", "nice=2", "--", "true")
        said = "is pending: "
        eventually(
            lambda: said in cluster.hansa("job", "explain", str(waiting)).out, "Slurm's reason is told", pause_s=1
        )
        go.touch()
        assert cluster.end(running)["exit_code"] == 0
        assert cluster.server.job(waiting)["counts"]["waiting"] == 1
    finally:
        before = time.time()
        cluster.slurm.run("scontrol", "update", "nodename=n[1-2]", "state=resume")
    assert cluster.end(waiting)["exit_code"] == 0
    kept = cluster.slurm.folder / "state" / "node_state"
    # A controller that is killed before it has written that down comes back with drained nodes.
    eventually(lambda: kept.stat().st_mtime > before, "the controller has written it down", pause_s=0.5)
    assert cluster.hansa("job", "logs", str(running)).out == "went\n"


def test_slurmctld_is_killed_and_comes_back(cluster: Cluster) -> None:
    cluster.free()
    # So long that the controller has written down whose jobs run where, which it does within five seconds: one that
    # does not know its last jobs gives their numbers again, and drains the nodes that know better.
    job = cluster.job("--site", "here", "--array", "0-39", "--", "sleep", "12")
    eventually(lambda: cluster.server.job(job)["counts"]["done"], "some tasks are done")
    cluster.slurm.kill_controller()
    ended = cluster.end(job)  # pilots need no controller
    assert ended["counts"]["done"] == 40
    another = cluster.job("--site", "here", "--batch", "nice=1", "--", "true")  # needs a pilot of its own
    eventually(lambda: "does not answer" in str(cluster.pilots()) or "sbatch" in str(cluster.pilots()), "it is told")
    cluster.slurm.start_controller()
    assert cluster.end(another)["exit_code"] == 0
    asyncio.run(cluster.server.check_books())


def test_nodes_that_reach_the_server_talk_to_it_by_https_alone(slurm: Slurm, tmp_path: Path) -> None:
    """No relay, no spool: inputs, outputs, logs and reports go by HTTPS; the server's own authority is believed."""
    authority = tmp_path / "authority"
    authority.mkdir()
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(authority / "key.pem"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(authority / "chain.pem"), append=True)
    ca.cert_pem.write_to_path(str(authority / "ca.pem"))
    settings = LEFT_IN_PEACE_S | {f"server__tls_{name}": f"{authority}/{file}.pem" for name, file in TLS.items()}
    server = ServerProcess(tmp_path / "home", **settings, server__ca_file=str(authority / "ca.pem"))
    server.settings["SLURM_CONF"] = str(slurm.conf)
    server.start()
    try:
        desk, go, there = desk_of(server, tmp_path / "desk"), tmp_path / "go", tmp_path / "there"
        place = {"host": "login", "here": True, "folder": str(there), "python": sys.executable, "poll_s": 1}
        site_file(desk, "near", place | {"transport": "https"})
        desk.write("in.txt", "brought\n")
        script = f"cat in.txt; while [ ! -e {go} ]; do sleep 0.1; done; head -c 300000 /dev/zero > out.{{i}}"
        words = ["--array", "0-2", "--input", "in.txt", "--output", "out.*", "--", "/bin/sh", "-c", script]
        job = desk.hansa("job", "submit", "-q", "--site", "near", *words).out.strip()
        configs = eventually(lambda: list(there.glob("*/pilots/*/config.json")), "a pilot is on its way")
        eventually(lambda: "brought" in desk.hansa("job", "logs", f"{job}.0").out, "it runs", pause_s=0.5)
        assert all(json.loads(one.read_text())["urls"][0].startswith("https://") for one in configs)
        relays = [one for one in psutil.process_iter(["cmdline"]) if "relay" in (one.info["cmdline"] or ())]
        assert not [one for one in relays if str(there) in " ".join(one.info["cmdline"] or ())]
        assert not list(there.glob("*/spool/*/*"))
        go.touch()
        desk.hansa("job", "wait", job)
        assert {row["state"] for row in desk.results(job)} == {"done"}
        desk.hansa("job", "fetch", job)
        assert sorted(path.stat().st_size for path in desk.folder.rglob("out.*")) == [300_000] * 3
    finally:
        server.end()
        _scancel(slurm)


def test_a_path_of_the_site_is_looked_for_first_and_what_is_written_there_stays(cluster: Cluster) -> None:
    scratch = cluster.desk.folder / "scratch"
    scratch.mkdir()
    refused = cluster.hansa("run", "--mount", "here:/no/such/path", "--", "true", code=None)
    assert "here has no /no/such/path" in refused.err
    said = cluster.hansa("run", "--mount", f"here:{scratch}", "--", "/bin/sh", "-c", f"echo 1 > {scratch}/kept")
    assert said.code == 0
    assert (scratch / "kept").read_text() == "1\n"


def test_a_canary_is_a_real_job_and_ones_that_fail_take_the_site_out(cluster: Cluster) -> None:
    cluster.free()
    there = cluster.desk.folder.parent / "canary"
    settings = {"host": "login", "here": True, "folder": str(there), "python": sys.executable}
    agreed = {"canaries": True}
    site_file(cluster.desk, "canary", settings, policy=agreed)

    def seen() -> dict[str, Any]:
        cluster.hansa("site", "probe", "canary")
        (end,) = cluster.hansa("site", "health", "canary", "-o", "json").json()["endpoints"]
        return dict(end)

    try:
        (first, *_) = reversed(eventually(lambda: seen()["canaries"], "a canary has ended", 240, 1))
        assert (first["state"], first["number"]) == ("ran", 1), first
        assert first["waited_s"] >= 0
        assert "A canary ran after" in cluster.hansa("site", "health", "canary").out

        # the nodes lose their Python: jobs start, and end badly, while every list still answers
        broken = settings | {"python": "/nowhere/python3"}
        site_file(cluster.desk, "canary", broken, "update", policy=agreed)
        eventually(lambda: seen()["health"]["phase"] == "down", "the site takes no new work", 300, 1)
        end = seen()
        assert end["health"]["reason"] == "sites.canary_failed"
        assert {one["state"] for one in end["canaries"][:2]} == {"failed"}
        assert "no Python 3.9" in end["canaries"][0]["message"]
        refused = cluster.hansa("plan", "--site", "canary", "-o", "json", code=None)
        assert "canaries in a row failed" in refused.out + refused.err
    finally:
        cluster.hansa("site", "remove", "canary", code=None)
