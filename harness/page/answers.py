"""What the methods answered: kept samples, and where the methods disagree."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.data.jsonio import parse_json_lines
from harness.errors import UserError
from harness.files import read_file
from harness.page.boards import full_name, scored
from harness.page.figures import PageFigure
from harness.records import Question, Record, predictions_path, questions_path, read_questions, record_path
from harness.tasks.facts import TASKS, AnswerKeys


@dataclass(frozen=True)
class Answer:
    """One answer: what was given, what is right, and the columns that the problem counts in."""

    given: Any
    expected: Any
    columns: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Whether the answer is right."""
        return bool(self.given == self.expected)


@dataclass(frozen=True)
class Answered:
    """The methods that answered the same problems under the same protocol, each by its run with the lowest seed.

    Attributes:
        title: task, model and protocol.
        runs: name of the method -> its run.
        answers: name of the method -> id of the problem -> answer; only problems that all methods answered.
    """

    title: str
    runs: Mapping[str, Record]
    answers: Mapping[str, Mapping[str, Answer]]

    @property
    def problems(self) -> Mapping[str, Answer]:
        """The problems with the answers of the first method."""
        return next(iter(self.answers.values()))


def read_answers(run: Record, results_dir: Path, keys: AnswerKeys) -> dict[str, Answer]:
    """Return the saved answers of a run by the id of the problem; empty where no predictions are saved.

    Raises:
        UserError: the file cannot be read, or a line has no answer.
    """
    path = predictions_path(record_path(run, results_dir))
    try:
        content = read_file(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    found = {}
    for place, row in parse_json_lines(content, str(path)):
        if not isinstance(row, dict) or not {keys.sample, keys.given, keys.expected} <= row.keys():
            raise UserError(
                f"{place}: no '{keys.sample}', '{keys.given}' and '{keys.expected}'; repeat the run with --force"
            )
        columns = row.get(keys.columns)
        names = tuple(map(str, columns)) if isinstance(columns, list) else ()
        found[str(row[keys.sample])] = Answer(row[keys.given], row[keys.expected], names)
    return found


def answered(records: Sequence[Record], results_dir: Path) -> list[Answered]:
    """Return who answered what, for each task with right answers, model, data set and protocol with two methods.

    Raises:
        UserError: see `read_answers`.
    """
    rows = {}
    for task, group in scored(records):
        if TASKS[task].answers is not None:
            run = min(group.runs, key=lambda run: run.seed)
            rows[task, run.model, run.protocol, run.data.data_hash, full_name(group)] = run
    found = []
    for place, members in groupby(sorted(rows.items(), key=lambda item: item[0]), key=lambda item: item[0][:4]):
        runs = {key[4]: run for key, run in members}
        keys = TASKS[place[0]].answers
        assert keys is not None, "tasks without right answers were left out"
        read = {name: answers for name, run in runs.items() if (answers := read_answers(run, results_dir, keys))}
        shared = set.intersection(*(set(answers) for answers in read.values())) if read else set()
        if len(read) > 1 and shared:
            common = {name: {qid: answers[qid] for qid in sorted(shared)} for name, answers in read.items()}
            title = f"{place[0]} on {place[1]}, protocol {place[2]}"
            found.append(Answered(title, {name: runs[name] for name in read}, common))
    return found


def disagreement_figure(number: int, group: Answered) -> PageFigure:
    """Return how often two methods give different answers to a problem, as a matrix."""
    names = list(group.answers)
    share = [[_differing(group.answers[one], group.answers[other]) for other in names] for one in names]
    rows = [(one, *(f"{value:.1f}" for value in line)) for one, line in zip(names, share, strict=True)]
    # Names below the columns would leave a phone no room for the matrix, so the columns have the numbers of the rows.
    numbers = [str(place) for place in range(1, len(names) + 1)]
    return PageFigure(
        f"disagreement-{number}",
        f"Different answers: {group.title}",
        f"Share of {len(group.problems):,} problems to which two methods give different answers, in percent. A column "
        "has the number of its method.",
        [
            {
                "type": "heatmap",
                "x": numbers,
                "y": [f"{name} {place}" for name, place in zip(names, numbers, strict=True)],
                "z": share,
                "text": [[f"{one} and {other}" for other in names] for one in names],
                "colorscale": "Cividis",
                "colorbar": {"title": {"text": "%"}},
                "hovertemplate": "%{text}: %{z:.1f} %<extra></extra>",
            }
        ],
        {"yaxis": {"autorange": "reversed", "dtick": 1}, "xaxis": {"type": "category"}},
        ("Method", *names),
        tuple(rows),
    )


def _differing(one: Mapping[str, Answer], other: Mapping[str, Answer]) -> float:
    return 100 * sum(one[qid].given != other[qid].given for qid in one) / len(one)


@dataclass(frozen=True)
class Asked:
    """A kept question with the answers of the methods.

    Attributes:
        question: the question.
        answers: name of the method -> its answer.
    """

    question: Question
    answers: Mapping[str, Answer]

    @property
    def disputed(self) -> bool:
        """Whether two methods give different answers."""
        return len({answer.given for answer in self.answers.values()}) > 1

    def option(self, answer: Answer) -> str:
        """Return the option that an answer names, as text."""
        given, options = answer.given, self.question.options
        named = isinstance(given, int) and 0 <= given < len(options)
        return options[given] if named else "could not be read"


def asked(group: Answered, questions: Mapping[str, Question]) -> list[Asked]:
    """Return the kept questions that all methods of a group answered, with their answers."""
    return [
        Asked(question, {name: answers[qid] for name, answers in group.answers.items()})
        for qid, question in questions.items()
        if qid in group.problems
    ]


def kept_questions(records: Sequence[Record], results_dir: Path) -> dict[str, dict[str, Question]]:
    """Return the kept questions of each run's data, by id; runs without any are left out.

    Args:
        records: the records.
        results_dir: their folder.

    Returns:
        Spec hash of the run -> id of the question -> question.

    Raises:
        UserError: a file of questions has an error.
    """
    found: dict[tuple[str, Path], dict[str, Question]] = {}
    by_run = {}
    for record in records:
        place = (record.task, questions_path(record.task, record.data, results_dir))
        if place not in found:
            kept = read_questions(record.task, record.data, results_dir)
            found[place] = {} if kept is None else {question.qid: question for question in kept.questions}
        if found[place]:
            by_run[record.spec_hash] = found[place]
    return by_run


AGREEMENT_HEADS = ("Problems", "Number", "All right", "All wrong", "Methods disagree")


def agreement_rows(group: Answered) -> list[tuple[str, ...]]:
    """Return, for all problems and for each column, how many all methods answered rightly, or wrongly.

    The rows are under `AGREEMENT_HEADS`.
    """
    members: dict[str, list[str]] = {"all": list(group.problems)}
    for qid, answer in group.problems.items():
        for column in answer.columns:
            members.setdefault(column, []).append(qid)
    return [_agreement(column, qids, group) for column, qids in members.items()]


def _agreement(column: str, qids: Sequence[str], group: Answered) -> tuple[str, ...]:
    methods = len(group.answers)
    right = Counter(sum(answers[qid].is_right for answers in group.answers.values()) for qid in qids)
    counts = (right[methods], right[0], len(qids) - right[methods] - right[0])
    return column, f"{len(qids):,}", *(f"{count:,} ({100 * count / len(qids):.1f} %)" for count in counts)


@dataclass(frozen=True)
class Captioned:
    """One image with the captions that the methods gave.

    Attributes:
        image_id: its id.
        image: path of the copy inside the results folder.
        references: captions of the data set.
        captions: name of the method -> its caption.
    """

    image_id: str
    image: str
    references: tuple[str, ...]
    captions: Mapping[str, str]


def captioned(records: Sequence[Record]) -> dict[str, list[Captioned]]:
    """Return the kept captions of the runs that are in a table, by task, model and protocol.

    Of each method, the run with the lowest seed is taken.
    """
    found: dict[str, dict[tuple[str, str], Captioned]] = {}
    for task, group in scored(records):
        run = min(group.runs, key=lambda run: run.seed)
        images = found.setdefault(f"{task} on {run.model}, protocol {run.protocol}", {})
        for sample in run.samples:
            known = images.get((sample.image_id, sample.image))
            captions = {**(known.captions if known else {}), full_name(group): sample.caption}
            place = (sample.image_id, sample.image)
            images[place] = Captioned(*place, tuple(sample.references), captions)
    return {title: list(images.values()) for title, images in found.items() if images}
