"""What the methods answered: kept samples, and where the methods disagree."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.page.boards import full_name, scored
from harness.page.figures import PageFigure
from harness.records import Question, Record, questions_path, read_questions
from harness.report.answers import Answers, Booleans, read_answers
from harness.report.paper import layout
from harness.tasks.facts import task_facts


@dataclass(frozen=True)
class Answered:
    """The rows that answered the same N problems under the same protocol, each by one run.

    It is the run with the lowest seed that all of them have or, without such a seed, with the lowest of each.

    Attributes:
        title: task, model, protocol and the seed in common.
        runs: name of the row -> its run, in the order of the tables.
        answers: name of the row -> its answers to the problems that all rows answered.
    """

    title: str
    runs: Mapping[str, Record]
    answers: Mapping[str, Answers]

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the rows that are methods, so neither ablations nor reference rows."""
        return tuple(name for name, run in self.runs.items() if _is_method(run))

    @property
    def problems(self) -> tuple[str, ...]:
        """The ids of the problems."""
        return next(iter(self.answers.values())).problems


def _is_method(run: Record) -> bool:
    """Return whether a run is of a method that the table of its task ranks."""
    references = {row.method for row in layout(task_facts(run.task).table).scale if row.variant is None}
    return run.variant is None and run.method not in references


def answered(records: Sequence[Record], results_dir: Path) -> list[Answered]:
    """Return who answered what, for each task with right answers, model, protocol and data set with two rows.

    Raises:
        UserError: saved predictions have an error.
    """
    placed: dict[tuple[str, str, str, str], dict[str, Sequence[Record]]] = {}
    for task, group in scored(records):
        run = group.runs[0]
        placed.setdefault((task, run.model, run.protocol, run.data.data_hash), {})[full_name(group)] = group.runs
    found = []
    for (task, model, protocol, _), groups in sorted(placed.items(), key=lambda item: item[0]):
        # The lowest seed that all rows have; without one, the lowest of each.
        in_common = set.intersection(*({run.seed for run in group} for group in groups.values()))
        runs = {
            name: min(group, key=lambda run: (run.seed not in in_common, run.seed)) for name, group in groups.items()
        }
        read = {name: answers for name, run in runs.items() if (answers := read_answers(run, results_dir))}
        shared = sorted(set.intersection(*(set(answers.problems) for answers in read.values()))) if read else []
        if len(read) > 1 and shared:
            common = {name: answers.to(shared) for name, answers in read.items()}
            seed = f"seed {min(in_common)}" if in_common else "the lowest seed of each"
            title = f"{task} on {model}, protocol {protocol}, {seed}"
            found.append(Answered(title, {name: runs[name] for name in read}, common))
    return found


def disagreement_figure(number: int, group: Answered) -> PageFigure:
    """Return how often two rows give different answers to a problem, as a matrix."""
    names = list(group.answers)
    share = [[_differing(group.answers[one], group.answers[other]) for other in names] for one in names]
    rows = [(one, *(f"{value:.1f}" for value in line)) for one, line in zip(names, share, strict=True)]
    # Names beside the rows would leave a phone no room for the matrix, so rows and columns have numbers.
    numbers = [str(place) for place in range(1, len(names) + 1)]
    named = ", ".join(f"{number} {name}" for number, name in zip(numbers, names, strict=True))
    return PageFigure(
        f"disagreement-{number}",
        f"Different answers: {group.title}",
        f"Share of {len(group.problems):,} problems to which two rows give different answers, in percent: {named}.",
        [
            {
                "type": "heatmap",
                "x": numbers,
                "y": numbers,
                "z": share,
                "text": [[f"{one} and {other}" for other in names] for one in names],
                "colorscale": "Cividis",
                "texttemplate": "%{z:.0f}",
                "colorbar": {"title": {"text": "%"}, "thickness": 12},
                "hovertemplate": "%{text}: %{z:.1f} %<extra></extra>",
            }
        ],
        {
            "xaxis": {"type": "category", "showgrid": False},
            "yaxis": {"type": "category", "showgrid": False, "autorange": "reversed"},
        },
        ("Method", *names),
        tuple(rows),
    )


def _differing(one: Answers, other: Answers) -> float:
    return 100 * sum(ours != theirs for ours, theirs in zip(one.given, other.given, strict=True)) / len(one.given)


@dataclass(frozen=True)
class Asked:
    """A kept question with the answers of the rows.

    Attributes:
        question: the question.
        given: name of the row -> the number of the option that it chose; anything else where none could be read.
        methods: the names of the rows that are methods.
    """

    question: Question
    given: Mapping[str, object]
    methods: Collection[str]

    @property
    def disputed(self) -> bool:
        """Whether two methods give different answers."""
        answers = [self.given[name] for name in self.methods]
        return any(given != answers[0] for given in answers)

    @property
    def chosen(self) -> list[tuple[str, list[str]]]:
        """Each option with the rows that chose it."""
        return [
            (option, [name for name, given in self.given.items() if given == number])
            for number, option in enumerate(self.question.options)
        ]

    @property
    def unread(self) -> list[str]:
        """The rows whose answer names no option."""
        return [name for name, given in self.given.items() if given not in range(len(self.question.options))]


def asked(group: Answered, questions: Mapping[str, Question]) -> list[Asked]:
    """Return the kept questions that all rows of a group answered, with their answers."""
    place = {qid: index for index, qid in enumerate(group.problems)}
    return [
        Asked(question, {name: answers.given[place[qid]] for name, answers in group.answers.items()}, group.methods)
        for qid, question in questions.items()
        if qid in place
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


AGREEMENT_HEADS = ("Problems", "Number", "All right", "All wrong", "Some right")


def agreement_rows(group: Answered) -> list[tuple[str, ...]]:
    """Return, for all problems and for each column, how many all methods answered rightly, or wrongly, or only some.

    The rows are under `AGREEMENT_HEADS`, in the order of the task's columns; a column without a problem has none. With
    fewer than two methods there is no row.
    """
    if len(group.methods) < 2:
        return []
    right_MN = np.array([group.answers[name].right_N for name in group.methods])
    summary = task_facts(next(iter(group.runs.values())).task).summary
    columns = next(iter(group.answers.values())).columns
    members = {"all": columns[summary]} | {name: asked_N for name, asked_N in columns.items() if name != summary}
    return [_agreement(name, right_MN[:, asked_N]) for name, asked_N in members.items() if asked_N.any()]


def _agreement(column: str, right_MN: Booleans) -> tuple[str, ...]:
    count = right_MN.shape[1]
    right, wrong = int(right_MN.all(axis=0).sum()), int((~right_MN).all(axis=0).sum())
    counts = (right, wrong, count - right - wrong)
    return column, f"{count:,}", *(f"{number:,} ({100 * number / count:.1f} %)" for number in counts)


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
