"""`bellbuoy evaluate-scorer`: how well the scores of a labelled file tell its labels apart."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from adapters.adapted import load_corrections
from adapters.settings import Settings
from bellbuoy.cli.printing import fail, harmless, print_json, table
from bellbuoy.cli.score import Progress
from bellbuoy.score_files import UnreadableFile, build_scoring, lines, score_rows
from core.evaluation import Evaluation, Figure, evaluate
from core.labels import FIELDS, Labelled, read_labelled
from core.metrics import FIRES
from core.score_lines import METRIC_OF, UNKNOWN_LANGUAGE, BadRow, Row
from core.scoring import ScoredText
from schemas.messages import FIXED_ONE

ALL: Final = "all"
_SHOWN: Final = (
    ("auprc", "AUPRC"),
    ("auroc", "AUROC"),
    ("recall_at_1", "RECALL AT 1 %"),
    ("recall_at_5", "RECALL AT 5 %"),
    ("recall", "RECALL"),
    ("over_blocking", "OVER-BLOCKING"),
    ("calibration_error", "ECE"),
    ("brier", "BRIER"),
)


@dataclass
class Judged:
    """Labels and values of one name on one part of the rows."""

    labels: list[int] = field(default_factory=list)
    values: list[int] = field(default_factory=list)

    def evaluation(self, seed: int) -> Evaluation:
        values = np.array(self.values, np.int64)
        return evaluate(np.array(self.labels, np.int64), values / FIXED_ONE, values >= FIRES, seed=seed)


Judgements = dict[tuple[str, str, str], Judged]
"""By (name, `all` or `source` or `language`, which)."""


def command(
    file: Annotated[Path, typer.Argument(help="Labelled JSON lines, plain or gzip; - reads stdin.", metavar="FILE")],
    app: Annotated[str, typer.Option("--app", help="Score as for this app.")] = "score",
    environment: Annotated[str, typer.Option("--environment", help="The app's environment.")] = "production",
    names: Annotated[str | None, typer.Option("--names", help="Only these scores, with commas between them.")] = None,
    mapped: Annotated[
        list[str] | None, typer.Option("--map", help="A field of 0 or 1 and what it labels.", metavar="FIELD=NAME")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Score labelled texts and say how well the scores tell the labels apart. Needs no stack and changes nothing.

    Rows are as for `bellbuoy score`, with `label: {NAME: 0 or 1}`, or `name` and `label`, or the fields harmful, jailbreak,
    injection, response_harmful and refusal; perhaps with `source` and `language`, by which the figures are given too.

    Recall at 1 % is that of the best threshold which at most 1 % of the rows with label 0 reach; RECALL and OVER-BLOCKING are
    the shares of the rows with label 1 and 0 that fire. Brackets: 95 % intervals of a bootstrap. Exits 1 when no row could be
    judged.

    \b
    Examples:
      bellbuoy evaluate-scorer labelled.jsonl.gz
      bellbuoy evaluate-scorer rows.jsonl --map toxic=prompt.safety.unsafe
    """
    if str(file) != "-" and not file.is_file():
        raise fail(f"{file}: there is no such file")
    fields = mapped_fields(mapped)
    wanted = {name.strip() for name in names.split(",")} if names else None
    settings = Settings()
    scoring = build_scoring(settings, adapted=load_corrections(settings, app, environment).active())
    judgements: Judgements = {}
    read = _Rows(file, app, environment, fields)
    progress, unscored = Progress(), 0
    try:
        for block in score_rows(scoring, iter(read)):
            for row, text in block:
                unscored += _judge(judgements, read.labelled.pop(row.id), text, wanted)
            progress.add(len(block))
    except UnreadableFile as error:
        raise fail(str(error)) from None
    progress.end(read.bad)
    if unscored:
        typer.echo(f"{unscored:,} labels are of scores that their row does not have", err=True)
    if not judgements:
        raise fail(f"no row of {file} has a label and a score; {read.unlabelled:,} have no label, {read.bad:,} cannot be read")
    results = {key: judged.evaluation(seed) for key, judged in sorted(judgements.items(), key=_rank)}
    if json:
        print_json([as_json(key, result) for key, result in results.items()])
    else:
        rows = [_line(key, result) for key, result in results.items()]
        typer.echo(table(("NAME", "PART", "ROWS", "POSITIVE", *(title for _, title in _SHOWN)), rows, right=[2, 3]))


class _Rows:
    """The rows of a file that have labels; `labelled` holds those that are under way, by the line's number."""

    def __init__(self, file: Path, app: str, environment: str, fields: dict[str, str]) -> None:
        self._file, self._app, self._environment, self._fields = file, app, environment, fields
        self.labelled: dict[str | int, Labelled] = {}
        self.bad = self.unlabelled = 0

    def __iter__(self) -> Iterator[Row | BadRow]:
        for number, line in lines(self._file):
            read = None if line is None else read_labelled(line, number, self._app, self._environment, self._fields)
            if read is None or isinstance(read, BadRow):
                self.bad += 1
            elif not read.labels:
                self.unlabelled += 1
            else:
                self.labelled[number] = read
                yield Row(number, read.row.interaction, read.row.given)


def _judge(
    judgements: Judgements,
    labelled: Labelled,
    text: ScoredText | None,
    wanted: set[str] | None,
) -> int:
    """Add a row's scores to the parts that it belongs to; how many of its labels have no score."""
    assert text is not None
    source, language = labelled.source, labelled.language
    found = text.scores.get("prompt.language")
    language = language or (found.label if found is not None else None) or UNKNOWN_LANGUAGE
    missing = 0
    for name, label in labelled.labels.items():
        if wanted is not None and name not in wanted:
            continue
        score = text.scores.get(METRIC_OF.get(name, name))
        if score is None or score.outcome == "error":
            missing += 1
            continue
        parts = [(name, ALL, ""), (name, "language", language)]
        if source is not None:
            parts.append((name, "source", source))
        for part in parts:
            judged = judgements.setdefault(part, Judged())
            judged.labels.append(label)
            judged.values.append(score.value)
    return missing


def mapped_fields(pairs: list[str] | None) -> dict[str, str]:
    """FIELDS with those that FIELD=NAME adds or replaces; fails with a sentence for another form."""
    fields = dict(FIELDS)
    for pair in pairs or ():
        name, _, score = pair.partition("=")
        if not name or not score:
            raise fail(f"--map {pair}: write FIELD=NAME")
        fields[name] = score
    return fields


def _rank(entry: tuple[tuple[str, str, str], Judged]) -> tuple[str, int, str]:
    (name, part, which), _ = entry
    return name, (ALL, "source", "language").index(part), which


def as_json(key: tuple[str, str, str], result: Evaluation) -> dict[str, Any]:
    """One part's figures as plain values: null where one is not defined."""
    name, part, which = key
    figures = {name: {k: _plain(v) for k, v in vars(figure).items()} for name, figure in result.figures.items()}
    return {"name": name, "part": part, "which": which, "rows": result.rows, "positives": result.positives, "figures": figures}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _line(key: tuple[str, str, str], result: Evaluation) -> Sequence[str]:
    name, part, which = key
    shown = [figure(result.figures[statistic]) for statistic, _ in _SHOWN]
    return [harmless(name), harmless(f"{part} {which}".strip()), f"{result.rows:,}", f"{result.positives:,}", *shown]


def figure(value: Figure) -> str:
    """A statistic with its interval.

    >>> figure(Figure(0.5, 0.4, 0.6)), figure(Figure(math.nan, math.nan, math.nan))
    ('.500 [.400 .600]', '-')
    """
    if math.isnan(value.value):
        return "-"
    if math.isnan(value.low):
        return _digits(value.value)
    return f"{_digits(value.value)} [{_digits(value.low)} {_digits(value.high)}]"


def _digits(value: float) -> str:
    """
    >>> _digits(0.5), _digits(1.0), _digits(-0.0312)
    ('.500', '1.00', '-.031')
    """
    text = f"{value:.3f}"
    return text[:-1] if abs(value) >= 0.9995 else text.replace("0.", ".", 1)
