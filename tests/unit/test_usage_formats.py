"""Usage records in the exchange format."""

from __future__ import annotations

from types import SimpleNamespace

from hansa.accounting.apel import summary


def row(**more: object) -> SimpleNamespace:
    values = {"month": "2026-02", "site": "BARI", "vo": "vo.a", "group": "astro:x", "user": "user_1"}
    return SimpleNamespace(**{**values, "tasks": 3, "wall_s": 10.4, "core_s": 41.6, "cpu_s": 30.0, **more})


def test_a_summary_of_a_month() -> None:
    text = summary([row(), row(tasks=0), row(group="", vo="", wall_s=0.0, site="A\nB")], "hansa.example.org")
    head, *records = text.removesuffix("%%\n").split("\nSite: ")
    assert head == "APEL-summary-job-message: v0.2"
    first = dict(line.split(": ", 1) for line in f"Site: {records[0]}".splitlines() if ": " in line)
    assert first == {
        "Site": "BARI",
        "Month": "2",
        "Year": "2026",
        "GlobalUserName": "user_1@hansa.example.org",
        "VO": "vo.a",
        "VOGroup": "/vo.a/astro/x",
        "VORole": "None",
        "SubmitHost": "hansa.example.org",
        "InfrastructureType": "grid",
        "ServiceLevelType": "custom",
        "ServiceLevel": "1.0",
        "NodeCount": "0",
        "Processors": "4",
        "EarliestEndTime": "1769904000",
        "LatestEndTime": "1772323199",
        "WallDuration": "10",
        "CpuDuration": "30",
        "NumberOfJobs": "3",
    }
    assert records[1].startswith("A B\n")
    assert text.count("%%") == 2
