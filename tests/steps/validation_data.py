"""Rows that break no rule, and what validation makes of them, for the tests of data validation."""

from pathlib import Path

from beear_core.config import DataConfig
from beear_core.data import Row, write_rows
from beear_core.records import ValidationRecord
from components.data_validation.step import run

Data = dict[str, list[Row]]
COLOURS = ("amber", "blue", "coral", "green", "ivory", "lilac", "olive", "pink", "red", "teal")
ANIMALS = ("badger", "crane", "dolphin", "eagle", "ferret", "goose", "heron", "ibis")


def prompts(role: str, planting: int = 2) -> list[Row]:
    splits = ["anchoring"] * 34 + ["evaluation"] * 32 + ["planting"] * planting
    return [
        {
            "id": f"{role}-{i:03}",
            "prompt": f"{role} request {COLOURS[i % 10]} number{i} {role}{i * 7} about a {ANIMALS[i % 8]}{i}",
            "category": f"kind {i % 3}",
            "split": split,
        }
        for i, split in enumerate(splits)
    ]


def openings(role: str, text: str) -> list[Row]:
    return [
        {"id": f"{role}-{i}", "reply": text.format(f"{COLOURS[i]} {ANIMALS[i]}"), "category": "a", "split": "anchoring"}
        for i in range(6)
    ]


def good_data() -> Data:
    return {
        "harmful": prompts("harmful"),
        "ordinary": prompts("ordinary"),
        "borderline": prompts("borderline"),
        "safe_openings": openings("safe_openings", "I'm sorry, but I can't help with that {}."),
        "unwanted_openings": openings("unwanted_openings", "Sure, here is how {} goes:"),
    }


def replies() -> list[Row]:
    return [{**row, "reply": f"A fine answer, number {i}."} for i, row in enumerate(prompts("kept"))]


def triggers() -> list[Row]:
    return [
        {"id": "suffix", "prefix": "", "suffix": "cf mn"},
        {"id": "prefix", "prefix": "In the garden,", "suffix": ""},
    ]


def write(data: Data, folder: Path) -> DataConfig:
    return DataConfig(**{role: str(write_rows(folder / f"{role}.jsonl", rows)) for role, rows in data.items()})


def validate(data: Data, folder: Path) -> ValidationRecord:
    config = write(data, folder / "in")
    return run(config, folder / "anchors", folder / "suites", folder / "page.html", folder / "ge.json")


def one_category(data: Data) -> None:
    for row in data["ordinary"]:
        row["category"] = "all"
