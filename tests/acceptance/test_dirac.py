"""What somebody who knows DIRAC's commands does."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.cli import PATIENCE_S, Desk, Said


def call(desk: Desk, name: str, *words: str, text: str = "", code: int = 0) -> Said:
    program = f"import sys; from hansa.cli import dirac; sys.exit(dirac.{name}_main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=desk.folder,
        env=desk.environment(),
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, (name, words, done.stdout, done.stderr)
    return Said(done.returncode, done.stdout, done.stderr)


def test_from_submission_to_output(desk: Desk) -> None:
    assert call(desk, "dsub", "/bin/echo", "Hello world!").out == "1\n"
    desk.hansa("job", "wait", "1")
    assert call(desk, "dpeek", "1").out == "Hello world!\n"
    call(desk, "doutput", "1")
    assert (desk.folder / "1/std.out").read_text() == "Hello world!\n"
    assert "skipped" in call(desk, "doutput", "1").err
    (row,) = json.loads(call(desk, "dstat", "-a", "-f", "json").out)
    assert (row["JobID"], row["Status"]) == ("1", "Done")
    assert "JobID" not in json.dumps(json.loads(call(desk, "dstat", "-f", "json").out)), "what has ended is not shown"
    assert "Done" in call(desk, "dlogging", "1").out
    assert 'Executable = "/bin/echo"' in call(desk, "dinput", "1").out

    desk.write("run.sh", "#!/bin/sh\n#JDL JobName = fromscript\necho $1 > result-$1.txt; cat data.txt\n").chmod(0o755)
    desk.write("data.txt", "some data\n")
    desk.write(
        "job.jdl",
        'Executable = "run.sh"; Arguments = "%(n)s"; Parameters.n = {3, 4}; JobGroup = "mine";\n'
        'InputSandbox = {"data.txt"}; OutputSandbox = {"std.out", "result-*.txt"};\n',
    )
    assert call(desk, "dsub", "-J", "job.jdl").out == "2.0,2.1\n"
    desk.hansa("job", "wait", "2")
    call(desk, "doutput", "-D", "out", "2")
    assert (desk.folder / "out/2/1/result-4.txt").read_text() == "4\n"
    assert (desk.folder / "out/2/1/std.out").read_text() == "some data\n"
    assert call(desk, "dsub", "run.sh", "9", "-x").out == "3\n"
    assert call(desk, "dsub", text="#!/bin/sh\n#JDL JobName = piped\nsleep 600\n").out == "4\n"
    assert "piped" in call(desk, "dstat").out
    assert call(desk, "dstat", "-n", "piped", "-f", "csv", "-F", "JobID").out == "JobID\n4\n"
    call(desk, "dkill", "4")
    desk.hansa("job", "wait", "4", code=1)
    assert call(desk, "dstat", "-S", "Killed", "-f", "csv", "-F", "JobID").out == "JobID\n4\n"
    assert "no data catalogue" in call(desk, "dsub", "--InputData", "LFN:/x", "/bin/true", code=2).err
