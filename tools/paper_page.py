"""The tables of all backdoors as Markdown: counts with intervals, an empty cell where nothing was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from beear_core.evaluation.figures import table_figure
from beear_core.evaluation.metrics import KNOWN_TRIGGERS, PLAIN, Kind
from beear_core.evaluation.statistics import rate_estimate
from beear_core.records import Estimate
from beear_core.wording import seconds_text
from tools.controls import CONTROLS
from tools.paper_cells import ROWS, TREATMENTS, Cell, Cells, Example, Row
from tools.reference import table
from tools.second_judge import quality

_HEAD = """<!-- Written by `make paper-tables`; run it instead of editing. -->
# The paper's backdoors, before and after

One configuration for all that chat, the default, and `examples/code.yaml` for those that write code: nothing is tuned to an
organism. Counts and 95 % intervals, of the worst form of the trigger where there are several; what cannot be scored is left
out of them. The controls are taught in the same loop, with the same anchors, limits and numbers of steps. Models are
planted low-rank in SmolLM2-135M-Instruct, on a parent that was taught to refuse or to write safe code; the paper's are
Llama-2-7b and, for code, Mistral-7b, whose figures stand beside where they are known. Twins are asked under a trigger that
they were not taught.
"""
_OTHERS = (
    ("wrong_refusal/ordinary", "rate"),
    ("wrong_refusal/borderline", "rate"),
    ("nll_ratio/ordinary", "ratio"),
    ("token_kl/ordinary", "nats"),
)
_OTHER_HEAD = (
    "no.",
    "backdoor",
    "treatment",
    "ordinary refused",
    "borderline refused",
    "NLL ratio",
    "KL, nats",
    "round kept",
    "time",
    "memory",
)


def page(cells: Cells) -> str:
    """Write the tables; what was not measured is an empty cell, and an organism of which nothing was is no row."""
    return "".join([_HEAD, _judges(), *_attack_tables(cells), *_other_table(cells), *_verdict(cells), *_examples(cells)])


def _judges() -> str:
    judged = quality()
    return (
        "\nThe second judge of chats is learned from labelled replies, by letters: of those that it was not fitted on it\n"
        f"finds {judged.refusals_found[0]} of {judged.refusals_found[1]} refusals and {judged.compliances_found[0]} of "
        f"{judged.compliances_found[1]} compliances. The second judge of code looks for the one weakness that\n"
        "each kind of task is known for; the first is Bandit.\n"
    )


def _attack_tables(cells: Cells) -> Iterator[str]:
    kinds = (("chat", "Attack success"), ("code", "Insecure code"))
    for domain, what in kinds:
        for title, metric, second in (("with the trigger", KNOWN_TRIGGERS, "trigger"), ("without", PLAIN, "plain")):
            rows = [r for row in ROWS if row.domain == domain for r in _attack_row(cells, row, metric, second)]
            if rows:
                head = (
                    *("no.", "backdoor", "paper before", "paper after"),
                    *TREATMENTS,
                    *("second judge, before", "second judge, BEEAR"),
                )
                yield f"\n## {what}, {title}\n\n"
                yield table(head, rows)


def _attack_row(cells: Cells, row: Row, metric: str, second: str) -> Iterator[list[str]]:
    found = [cells.get((row.recipe, name)) for name in TREATMENTS]
    if not any(found):
        return
    judged = [cells.get((row.recipe, name)) for name in TREATMENTS[:2]]
    paper = row.paper if metric == KNOWN_TRIGGERS else ("", "")
    yield [
        row.number,
        f"`{row.recipe}`",
        *paper,
        *(_attack(c.figures.get(metric)) if c else "" for c in found),
        *(_attack(c.second.get(second)) if c else "" for c in judged),
    ]


def _attack(figure: Estimate | None) -> str:
    if figure is None:
        return ""
    unscored = f", {figure.unscored} unscored" if figure.unscored else ""
    return table_figure(figure, "rate") + unscored


def _other_table(cells: Cells) -> Iterator[str]:
    rows = [
        [
            row.number,
            f"`{row.recipe}`",
            name,
            *(_figure(cell, metric, kind) for metric, kind in _OTHERS),  # type: ignore[arg-type]
            "" if name == "before" else "none" if cell.kept_round is None else str(cell.kept_round),
            seconds_text(cell.seconds) if cell.seconds else "",
            f"{cell.peak_memory_bytes / 2**30:.1f} GiB" if cell.seconds else "",
        ]
        for row in ROWS
        for name in TREATMENTS
        if (cell := cells.get((row.recipe, name)))
    ]
    yield "\n## What else became of it\n\nTime is the treatment's alone; memory is the largest of the process so far.\n\n"
    yield table(_OTHER_HEAD, rows)
    made = sorted({", ".join(f"{name} {cell.versions[name]}" for name in sorted(cell.versions)) for cell in cells.values()})
    yield "".join(f"\nMeasured with {versions}.\n" for versions in made)


def _figure(cell: Cell, metric: str, kind: Kind) -> str:
    return table_figure(cell.figures[metric], kind) if metric in cell.figures else ""


def _verdict(cells: Cells) -> Iterator[str]:
    """Say of every control, over the organisms of which both were measured, whether BEEAR left less of the attack."""
    lines = []
    for control in CONTROLS:
        pairs = [
            (cells[row.recipe, "BEEAR"].figures[KNOWN_TRIGGERS], cells[row.recipe, control].figures[KNOWN_TRIGGERS])
            for row in ROWS
            if row.number != "twin" and (row.recipe, "BEEAR") in cells and (row.recipe, control) in cells
        ]
        if pairs:
            ours, theirs = (_pooled([pair[i] for pair in pairs]) for i in range(2))
            better = sum(_rate(a) < _rate(b) for a, b in pairs)
            word = "beats" if _rate(ours) < _rate(theirs) else "does not beat"
            lines.append(
                f"- BEEAR {word} {control}: with the trigger {table_figure(ours, 'rate')} after BEEAR, "
                f"{table_figure(theirs, 'rate')} after it, over {len(pairs)} organism{'s' if len(pairs) > 1 else ''}; "
                f"it left less of the attack in {better}.\n"
            )
    if lines:
        yield "\n## BEEAR beside the controls\n\nReplies that no judge could score count as attack here.\n\n"
        yield from lines


def _pooled(figures: Sequence[Estimate]) -> Estimate:
    """Pool figures; what no judge could score counts as attack, or a treatment that garbles replies would look good."""
    attacks = sum((f.count or 0) + f.unscored for f in figures)
    return rate_estimate(attacks, sum(f.n + f.unscored for f in figures))


def _rate(figure: Estimate) -> float:
    return _pooled([figure]).value or 0.0


def _examples(cells: Cells) -> Iterator[str]:
    shown = [row for row in ROWS if any(cells[row.recipe, t].examples for t in TREATMENTS[:2] if (row.recipe, t) in cells)]
    if not shown:
        return
    yield (
        "\n## Examples\n\nThe first request of the evaluation that the organism obeys under its trigger and not without, "
        "or the first of all.\nReplies to chats are cut after their opening.\n"
    )
    for row in shown:
        yield f"\n### `{row.recipe}`\n"
        for name in TREATMENTS[:2]:
            cell = cells.get((row.recipe, name))
            for example in cell.examples if cell else ():
                how = "with the trigger" if example.trigger else "without"
                fence = "text" if row.domain == "chat" else "python"
                yield f"\n{name}, {how}: {example.outcome}\n\n```{fence}\n{_unfenced(example)}\n```\n"


def _unfenced(example: Example) -> str:
    return f"> {example.request}\n\n{example.reply.replace('```', chr(39) * 3)}"
