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
    assert 'Executable = "/bin/echo"' in call(desk, "dinput", "-j", "1").out

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


def test_names_sandboxes_and_data(desk: Desk) -> None:
    """What JDL files of the grid say about files: names of streams, %n in them, output data apart from the sandbox."""
    desk.write("in.txt", "some input\n")
    desk.write(
        "tool.sh", "#!/bin/sh\necho out $1; echo err $1 >&2; cat in.txt > big-$1.dat; echo s > small.txt\n"
    ).chmod(0o755)
    desk.write(
        "job.jdl",
        """[
        JobName = "scan_%n"; Executable = "tool.sh"; Arguments = "%s"; InputSandbox = {"in.txt"};
        Parameters = 3; ParameterStart = 5; ParameterStep = 1; ParameterFactor = 2;
        StdOutput = "out_%n.log"; StdError = "err_%n.log"; OutputSandbox = {"out_%n.log", "err_%n.log", "small.txt"};
        OutputData = {"big-%s.dat"}; OutputSE = "SOME-disk"; JobGroup = "scans";
        ]""",
    )
    said = call(desk, "dsub", "-J", "job.jdl")
    assert said.out == "1.0,1.1,1.2\n"
    assert "no storage element" in said.err
    assert "an array has one name: scan" in said.err
    desk.hansa("job", "wait", "1")
    call(desk, "doutput", "1.0", "1.2", "-v")
    assert (desk.folder / "1.2/out_2.log").read_text() == "out 23\n"
    assert (desk.folder / "1.2/err_2.log").read_text() == "err 23\n"
    assert (desk.folder / "1.0/big-5.dat").read_text() == "some input\n"
    call(desk, "doutput", "--Data", "-D", "data", "1.1")
    assert [path.name for path in (desk.folder / "data/1.1").iterdir()] == ["big-11.dat"]
    call(desk, "doutput", "--Sandbox", "-D", "sandbox", "1.1")
    assert sorted(path.name for path in (desk.folder / "sandbox/1.1").iterdir()) == [
        "err_1.log",
        "out_1.log",
        "small.txt",
    ]
    call(desk, "doutput", "-n", "-D", "flat", "1.1")
    assert (desk.folder / "flat/small.txt").read_text() == "s\n"
    assert "not written over" in call(desk, "doutput", "-n", "-D", "flat", "1.1", code=5).err
    call(desk, "doutput", "-g", "scans", "-D", "all")
    assert (desk.folder / "all/1/2/big-23.dat").exists()
    call(desk, "dinput", "1")
    assert (desk.folder / "1/in.txt").read_text() == "some input\n"
    assert (desk.folder / "1/tool.sh").stat().st_mode & 0o100
    assert 'StdOutput = "out_%n.log"' in (desk.folder / "1/1.jdl").read_text()
    history = json.loads(call(desk, "dlogging", "-f", "json", "1").out)
    assert history[0]["Status"] == "Waiting"
    assert history[-1]["Status"] == "Done"
    assert "whose output" in call(desk, "dpeek", "1", code=2).err
    assert call(desk, "dpeek", "1.1").out == "out 11\n"


def test_what_is_not_done_is_said(desk: Desk) -> None:
    assert call(desk, "dsub", "/bin/sleep", "600").out == "1\n"
    assert "Nothing was stopped" in call(desk, "dkill", "-D", "1", code=2).err
    assert call(desk, "dstat", "-f", "csv", "-F", "JobID").out == "JobID\n1\n"
    assert "no output yet" in call(desk, "doutput", "1", code=1).err
    assert not (desk.folder / "1").exists()
    assert "written nothing so far" in call(desk, "dpeek", "1").err
    assert "7: " in call(desk, "dkill", "7", "1", code=4).err
    desk.hansa("job", "wait", "1", code=1)
    for text, why in (
        ("Arguments = 1;", "no Executable"),
        ('Executable = "/bin/true"; StdOutput = "a/b";', "no name for a file"),
        ('Executable = "/bin/true"; InputSandbox = "LFN:/x";', "no data catalogue"),
        ('Executable = "/bin/true"; StdOutput = "x"; StdError = "x";', "two files"),
    ):
        assert why in call(desk, "dsub", "-J", text, code=2).err
    assert json.loads(call(desk, "dstat", "-a", "-f", "json").out)[0]["Status"] == "Killed"
    assert "no field Nonsense" in call(desk, "dstat", "-F", "Nonsense", code=2).err
