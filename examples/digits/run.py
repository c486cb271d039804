"""A parameter sweep from end to end: 200 classifiers on 1,797 handwritten digits, one table, one plot.

    python examples/digits/run.py

It writes the data and the parameters, lets ``hansa run`` do the sweep, and draws what comes back.
"""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
SEED = 20
KINDS = {  # kind: (title, what the setting is, its values, what the variant is, its values)
    "knn": (
        "nearest neighbours",
        "neighbours",
        (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 40, 50, 60),
        "weights",
        ("uniform", "distance"),
    ),
    "svm": ("support vectors", "C", (0.03, 0.1, 0.3, 1, 10), "gamma", (1e-4, 1e-3, 3e-3, 1e-2)),
    "forest": ("random forest", "trees", (1, 3, 10, 30), "depth", (4, 8, 16)),
    "tree": ("decision tree", "depth", (2, 4, 8, 12), "criterion", ("gini", "entropy")),
    "ridge": (
        "ridge",
        "penalty",
        (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1, 3, 10, 30, 100, 1000),
        "random features",
        (0, 50, 150, 400),
    ),
    "softmax": (
        "softmax regression",
        "steps",
        (1, 3, 6, 10, 20, 40, 80, 150, 250, 400),
        "rate",
        (0.01, 0.03, 0.1, 0.3),
    ),
    "bayes": (
        "naive Bayes",
        "smoothing",
        (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1),
        "prior",
        ("even", "counted"),
    ),
}
LOGARITHMIC = {"svm", "ridge", "softmax", "bayes"}


def write_inputs() -> None:
    """The digits in three parts, and a row of parameters per task."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    parts = dict(zip(("train", "check", "test"), np.split(order, [1077, 1437]), strict=True))
    arrays = {f"{name}_images": digits.data[rows] for name, rows in parts.items()}
    arrays |= {f"{name}_labels": digits.target[rows] for name, rows in parts.items()}
    np.savez_compressed(HERE / "digits.npz", **arrays)
    with (HERE / "params.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "setting", "variant"])
        for kind, (_, _, settings, _, variants) in KINDS.items():
            writer.writerows([kind, setting, variant] for setting in settings for variant in variants)


def sweep(folder: Path) -> None:
    """Let Hansa run the 200 tasks; the outputs and results.csv land in ``folder``."""
    words = ["--name", "digits", "--params", "params.csv", "--env", "OMP_NUM_THREADS=1", "--to", str(folder)]
    task = [sys.executable, "train.py", "digits.npz", "{model}", "{setting}", "{variant}"]
    shown = [os.path.relpath(word, HERE) if word == str(folder) else word for word in words]
    print(f"$ cd {os.path.relpath(HERE)}")
    print("$ hansa run " + shlex.join([*shown, "--"]) + " python " + " ".join(task[1:]), flush=True)
    command = [sys.executable, "-m", "hansa.cli.main", "run", *words, "--", *task]
    done = subprocess.run(command, cwd=HERE, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def read_results(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: -float(row["accuracy"]))


def print_best(rows: list[dict[str, str]]) -> None:
    print("\nThe ten best of them, by accuracy on the validation images:\n")
    print(f"{'model':22}{'setting':>18}  {'variant':18}{'accuracy':>9}{'test':>8}")
    for row in rows[:10]:
        title, setting, _, variant, _ = KINDS[row["model"]]
        first, second = f"{setting} {row['setting']}", f"{variant} {row['variant']}"
        accuracy, test = float(row["accuracy"]), float(row["test_accuracy"])
        print(f"{title:22}{first:>18}  {second:18}{accuracy:9.3f}{test:8.3f}")


def draw(rows: list[dict[str, str]], file: Path) -> None:
    """A panel per kind of model: accuracy over its setting, a line per variant; and the best of each kind."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 4, figsize=(14, 6.6), layout="constrained", sharey=True)
    colours = plt.get_cmap("viridis")
    for panel, (kind, (title, setting, _, variant, variants)) in zip(axes.flat, KINDS.items(), strict=False):
        lines = defaultdict(list)
        for row in rows:
            if row["model"] == kind:
                lines[row["variant"]].append((float(row["setting"]), float(row["accuracy"])))
        for number, name in enumerate(map(str, variants)):
            colour = colours(0.1 + 0.75 * number / max(1, len(variants) - 1))
            panel.plot(*zip(*sorted(lines[name]), strict=True), "o-", ms=3.5, lw=1.4, color=colour, label=name)
        panel.set_title(title, loc="left", fontweight="bold")
        panel.set_xlabel(setting)
        panel.set_ylim(0, 1.02)
        panel.grid(axis="y", alpha=0.3)
        panel.legend(title=variant, frameon=False, fontsize=8, title_fontsize=8, loc="lower right")
        if kind in LOGARITHMIC:
            panel.set_xscale("log")
    best = {kind: max(float(r["accuracy"]) for r in rows if r["model"] == kind) for kind in KINDS}
    names = sorted(best, key=lambda kind: best[kind])
    axes.flat[len(KINDS)].remove()
    last = figure.add_subplot(2, 4, len(KINDS) + 1)
    bars = last.barh(range(len(names)), [best[name] for name in names], color=colours(0.45))
    last.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    last.set_yticks([])
    for height, name in enumerate(names):
        last.text(0.02, height, KINDS[name][0], color="white", va="center")
    last.set_xlim(0, 1.15)
    last.set_title("the best of each", loc="left", fontweight="bold")
    last.set_xlabel("accuracy")
    for panel in axes[:, 0]:
        panel.set_ylabel("accuracy")
    figure.suptitle("200 classifiers on scikit-learn's handwritten digits (validation images)", fontsize=12)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def new_folder() -> Path:
    """``out/1``, ``out/2``, …: nothing of an earlier run is written over."""
    OUT.mkdir(exist_ok=True)
    number = 1 + max((int(path.name) for path in OUT.iterdir() if path.name.isdigit()), default=0)
    return OUT / str(number)


def program() -> str:
    """How to call hansa from here."""
    beside = Path(sys.executable).parent / "hansa"
    return "hansa" if shutil.which("hansa") or not beside.exists() else os.path.relpath(beside)


def main() -> None:
    began = time.monotonic()
    write_inputs()
    folder = new_folder()
    sweep(folder)
    rows = read_results(folder)
    plot = folder / "digits.png"
    draw(rows, plot)
    print_best(rows)
    hansa = program()
    print(f"""
table   {os.path.relpath(folder / "results.csv")}   ({len(rows)} rows)
plot    {os.path.relpath(plot)}
took    {time.monotonic() - began:.0f} s in all

Try next:
  {hansa} job show last                                   how the sweep went
  {hansa} job results last -o csv                         its table, from the server
  {hansa} run --array 0-9 -- sh -c 'echo task {{i}}; hostname'
  {hansa} status                                          the server, which is still running
  {hansa} down                                            stop it""")


if __name__ == "__main__":
    main()
