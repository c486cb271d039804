"""Which files travel with a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.client.arrays import Array
from hansa.client.draft import Draft, Options, parse_env, prepare
from hansa.client.errors import HansaError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def put(path: Path, content: str = "x", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def places(draft: Draft) -> list[str]:
    return sorted(source.dest for source in draft.shared)


def test_files_named_in_the_command_travel(here: Path) -> None:
    put(here / "fit.py")
    put(here / "data/in.csv")
    put(here / "conf.yaml")
    draft = prepare(["python", "fit.py", "data/in.csv", "--config=conf.yaml", "--fast", "nothing"], Options())
    assert places(draft) == ["conf.yaml", "data/in.csv", "fit.py"]
    assert draft.spec.command == [
        "python",
        "fit.py",
        "data/in.csv",
        "--config=conf.yaml",
        "--fast",
        "nothing",
    ]


def test_a_program_here_travels_with_its_bit(here: Path) -> None:
    put(here / "sim.sh", mode=0o755)
    draft = prepare(["sim.sh"], Options())
    assert draft.spec.command == ["./sim.sh"]
    assert draft.shared[0].executable


def test_a_program_without_the_bit_is_an_error(here: Path) -> None:
    put(here / "x.py")
    with pytest.raises(HansaError) as caught:
        prepare(["./x.py"], Options())
    assert caught.value.hint == "Run: chmod +x ./x.py, or run it as: python ./x.py"


def test_a_program_that_is_not_there_is_an_error(here: Path) -> None:
    with pytest.raises(HansaError, match=r"no program \./x\.py"):
        prepare(["./x.py"], Options())


def test_a_file_with_the_name_of_a_program_stays(here: Path) -> None:
    put(here / "ls")
    assert prepare(["ls"], Options()).shared == []


def test_files_outside_are_not_sent_and_it_says_so(here: Path) -> None:
    put(here.parent / "other.csv")
    draft = prepare(["cat", "../other.csv", str(here.parent / "other.csv"), "/bin/sh"], Options())
    assert draft.shared == []
    assert len(draft.notes) == 2
    assert "--input ../other.csv" in draft.notes[0]


def test_directories_are_told(here: Path) -> None:
    put(here / "data/a")
    draft = prepare(["ls", "data", "."], Options())
    assert [note[:22] for note in draft.notes] == ["data is a directory an"]


def test_inputs_and_their_places(here: Path) -> None:
    put(here / "a.txt")
    put(here / "data/b.txt")
    put(here.parent / "c.txt")
    draft = prepare(["true"], Options(inputs=["a.txt=in/x.txt", "data", "../c.txt", "a.txt=in/"]))
    assert places(draft) == ["c.txt", "data/b.txt", "in/a.txt", "in/x.txt"]


@pytest.mark.parametrize("dest", ["../x", "/etc/passwd", "a/../../x"])
def test_places_outside_are_refused(here: Path, dest: str) -> None:
    put(here / "a.txt")
    with pytest.raises(HansaError, match="cannot go to"):
        prepare(["true"], Options(inputs=[f"a.txt={dest}"]))


def test_two_files_for_one_place_are_refused(here: Path) -> None:
    put(here / "a.txt")
    put(here / "b.txt")
    with pytest.raises(HansaError, match="would both be x"):
        prepare(["true"], Options(inputs=["a.txt=x", "b.txt=x"]))


def test_each_task_gets_its_own_file(here: Path) -> None:
    for number in range(3):
        put(here / f"data/{number}.csv", str(number))
    draft = prepare(["wc", "data/{i}.csv"], Options(array="0-2", inputs=["data/{i}.csv=in.csv"]))
    assert draft.per_task is not None
    assert [[s.dest for s in mine] for mine in draft.per_task] == [[f"data/{n}.csv", "in.csv"] for n in range(3)]
    spec = draft.finish({source.path: f"sha256:{source.path.stem}" for source in draft.sources()})
    assert spec.rows is not None
    assert [row.inputs[1].digest for row in spec.rows] == ["sha256:0", "sha256:1", "sha256:2"]


def test_all_missing_inputs_are_in_one_error(here: Path) -> None:
    put(here / "data/0.csv")
    with pytest.raises(HansaError) as caught:
        prepare(["true"], Options(array="0-9", inputs=["data/{i}.csv", "more"]))
    assert caught.value.detail.startswith("10 input files are not there: data/1.csv, data/2.csv")
    assert "and 5 more" in caught.value.detail


def test_a_template_that_some_tasks_have_is_noted(here: Path) -> None:
    put(here / "out-1.txt")
    draft = prepare(["sim", "out-{i}.txt"], Options(array="0-9"))
    assert "1 task has such a file here, the other 9 not" in draft.notes[0]


def test_a_million_tasks_need_no_million_looks(here: Path) -> None:
    draft = prepare(["echo", "{i}", "out/{i}.txt"], Options(array="0-999999"))
    assert draft.per_task is None
    assert draft.finish({}).rows is None


def test_values_that_are_paths_travel(here: Path) -> None:
    put(here / "a.csv")
    put(here / "data/b.csv")
    put(here.parent / "c.csv")
    rows = Array(3, 0, ["file"], [["a.csv"], ["data/b.csv"], ["../c.csv"]])
    draft = prepare(["wc", "{file}"], Options(array=rows))
    assert [[s.dest for s in mine] for mine in draft.per_task or []] == [["a.csv"], ["data/b.csv"], []]


def test_a_workdir_goes_whole_but_for_what_is_ignored(here: Path) -> None:
    for name in (
        "a.py",
        "data/x.bin",
        "data/keep.bin",
        ".git/config",
        "hansa-3/out",
        "sub/__pycache__/a.pyc",
    ):
        put(here / "tree" / name)
    put(here / "tree/.hansaignore", "# comment\n*.bin\n!keep.bin\n")
    (here / "tree/link").symlink_to("/etc")
    (here / "tree/broken").symlink_to("nowhere")
    draft = prepare(["python", "a.py"], Options(workdir=Path("tree")))
    assert places(draft) == ["a.py", "data/keep.bin"]
    assert "link (a link to a directory)" in draft.notes[0]
    assert "sending tree: 2 files, 2 B" in draft.notes[1]


def test_array_and_params_exclude_each_other(here: Path) -> None:
    with pytest.raises(HansaError, match="not from both"):
        prepare(["true"], Options(array="0-1", params=Path("p.csv")))


@pytest.mark.parametrize("options", [Options(cores=0), Options(retries=-1), Options(priority=11), Options(gpus=-1)])
def test_numbers_out_of_range_are_refused(here: Path, options: Options) -> None:
    with pytest.raises(HansaError, match="is"):
        prepare(["true"], options)


def test_variables() -> None:
    assert parse_env(["A=1=2", "B"], {"B": "x"}) == {"A": "1=2", "B": "x"}
    for bad in ("1A=2", "=x", "C"):
        with pytest.raises(HansaError):
            parse_env([bad], {})
