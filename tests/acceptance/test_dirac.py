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
    call(desk, "dinput", "1")
    assert [path.name for path in (desk.folder / "InputSandbox1").iterdir()] == ["1.jdl"], "beside what doutput brought"

    desk.write("run.sh", "#!/bin/sh\n#JDL JobName = from a script\necho $1 > result-$1.txt; cat data.txt\n")
    desk.write("sub/data.txt", "some data\n")
    desk.write(
        "job.jdl",
        'Executable = "run.sh"; Arguments = "%(n)s"; Parameters.n = {3, 4}; JobGroup = "mine";\n'
        'InputSandbox = {"sub/data.txt"}; OutputSandbox = {"std.out", "result-*.txt"};\n',
    )
    assert call(desk, "dsub", "-J", "job.jdl").out == "2.0,2.1\n"
    desk.hansa("job", "wait", "2")
    call(desk, "doutput", "-D", "out", "2")
    assert (desk.folder / "out/2/1/result-4.txt").read_text() == "4\n"
    assert (desk.folder / "out/2/1/std.out").read_text() == "some data\n"
    said = call(desk, "dsub", "run.sh", "9", "-N", "x")
    assert (said.out, "-N goes to the executable" in said.err) == ("3\n", True)
    # no interpreter named: the shell's, as in DIRAC's wrapper
    assert call(desk, "dsub", text="#JDL JobName = piped\nsleep 600\n").out == "4\n"
    assert "piped" in call(desk, "dstat").out
    rows = json.loads(call(desk, "dstat", "-a", "-f", "json", "-F", "JobName,Site").out)
    assert [row["JobName"] for row in rows] == ["echo", "from a script", "from a script", "piped"]
    assert rows[0]["Site"] == "local"
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
    call(desk, "doutput", "-g", "none", "-g", "scans", "-D", "all")
    assert (desk.folder / "all/1/2/big-23.dat").exists()
    assert "77: There is no job 77" in call(desk, "doutput", "77", "1.0", "-D", "rest", code=4).err
    assert (desk.folder / "rest/1.0").exists(), "the others are brought"
    call(desk, "dinput", "-j", "--Sandbox", "-D", "in", "1")
    sent = desk.folder / "in/InputSandbox1"
    assert (sent / "in.txt").read_text() == "some input\n"
    assert (sent / "tool.sh").stat().st_mode & 0o100
    described = (sent / "1.jdl").read_text()
    for line in ('StdOutput = "out_%n.log"', 'Arguments = "%s"', 'Parameters = {"5", "11", "23"}', '"big-%s.dat"'):
        assert line in described
    one = call(desk, "dinput", "-j", "1.2").out
    assert 'Arguments = "23"' in one
    assert 'StdOutput = "out_2.log"' in one
    said = call(desk, "dsub", "-J", described, "in/InputSandbox1/tool.sh", "x")
    assert said.out == "2.0,2.1,2.2\n", "what dinput wrote can be submitted"
    desk.hansa("job", "wait", "2", code=None)
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
    found = call(desk, "dstat", "-S", "Stalled")
    assert "no job is ever Stalled here" in found.err
    assert "no state fail;" in call(desk, "dstat", "-S", "Fail", code=2).err
    assert "of bob no jobs" in call(desk, "dstat", "-a", "-u", "bob").err
    assert len(json.loads(call(desk, "dstat", "-a", "-u", "*", "-f", "json").out)) == 1
    assert "is not here" in call(desk, "dsub", "rum.sh", code=2).err
    assert call(desk, "dsub", "--Parametric=1:4", "/bin/true", "--", "--", "%s").out == "2.0,2.1,2.2\n"
    assert "no field Nonsense" in call(desk, "dstat", "-F", "Nonsense", code=2).err
    # COMDIRAC's own file < lines of the script < options; a JDL takes the place of the file's
    desk.environ["DCOMMANDS_CONFIG_DIR"] = str(desk.folder)
    desk.write(
        "dcommands.conf",
        '[global]\ndefault_profile = mine\n[mine]\njdl = [JobGroup = "session"; Priority = 1; CPUTime = 11;]\n'
        "dstat_fields = JobGroup,CPUTime\n",
    )
    desk.write("run.sh", "#JDL CPUTime = 22\n#JDL Priority = 2\ntrue\n")
    call(desk, "dsub", "--Priority", "3", "run.sh")
    call(desk, "dsub", "-J", 'CPUTime = 44; Executable = "run.sh";')
    said = call(desk, "dstat", "3", "4", "-f", "csv").out
    assert said == "JobID,JobGroup,CPUTime\n3,session,22\n4,,22\n"
    assert "Priority = 3" in call(desk, "dinput", "-j", "3").out
    verbose = call(desk, "dsub", "-v", "/bin/true")
    assert verbose.out == "5\n"
    assert 'JobGroup = "session"' in verbose.err
    desk.write("dcommands.conf", "nonsense")
    assert "dcommands.conf cannot be read" in call(desk, "dsub", "/bin/true", code=2).err
    for number in ("3", "4", "5"):
        desk.hansa("job", "wait", number)
