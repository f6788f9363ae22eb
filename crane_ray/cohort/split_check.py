"""Whether splits are sound: no patient in two parts, every part fit to train or to judge with."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.drawing import PARTS, Part
from crane_ray.cohort.findings import Finding, Severity, counted, some
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.cohort.splits import Split
from crane_ray.cohort.tasks import MISSING

Splits = Mapping[int, Split]
FOLDS_SHOWN = 12
PARTS_SHOWN = 6


def check_splits(
    splits: Splits, cohort: Cohort | None, feature_ids: Iterable[str] | None = None
) -> list[Finding]:
    """What is wrong with splits, the worst first; nothing where they are sound.

    Args:
        splits: by fold.
        cohort: whose slides they are, and their labels; without it only slides are looked at.
        feature_ids: the slides that there are features of; not looked at where not given.
    """
    case_of = dict(zip(cohort.slide_ids, cohort.case_ids, strict=True)) if cohort else None
    findings = check_parts(splits, case_of, feature_ids)
    if cohort is not None:
        findings += _check_classes(splits, cohort, _bare(feature_ids))
    return by_severity(findings)


def check_parts(
    splits: Splits,
    case_of: Mapping[str, str] | None,
    feature_ids: Iterable[str] | None = None,
) -> list[Finding]:
    """As `check_splits`, of slides and cases alone; no class is looked at.

    Args:
        splits: by fold.
        case_of: the case of each slide that has a label.
        feature_ids: the slides that there are features of.
    """
    features = _bare(feature_ids)
    findings = [
        *_repeated(splits),
        *_in_two_parts(splits, None),
        *_empty_parts(splits, case_of, features),
        *_test_overlap(splits, case_of),
    ]
    if case_of is not None:
        findings += _in_two_parts(splits, case_of)
        findings += _unlabelled(splits, case_of)
        findings += _in_no_part(splits, case_of)
    if features is not None:
        findings += _without_features(splits, features)
    return by_severity(findings)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes, each in the order given."""
    order: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def _bare(feature_ids: Iterable[str] | None) -> frozenset[str] | None:
    return None if feature_ids is None else frozenset(map(bare_slide_id, feature_ids))


def _all_slides(split: Split) -> list[str]:
    return [slide for part in PARTS for slide in split.part(part)]


def _over_folds(
    splits: Splits,
    names_of: Callable[[Split], Iterable[str]],
    said: tuple[Severity, str, str, str],
) -> list[Finding]:
    """One finding about the names that each fold has of a kind, or none.

    Args:
        splits: by fold.
        names_of: the names of one fold.
        said: severity, kind, noun, and what is the matter and to be done.
    """
    severity, kind, noun, matter = said
    names = {fold: sorted(set(names_of(split))) for fold, split in splits.items()}
    found = {fold: own for fold, own in names.items() if own}
    if not found:
        return []
    distinct = tuple(sorted({name for own in found.values() for name in own}))
    told = [f"fold {fold}: {len(own)}" for fold, own in found.items()]
    in_all = len(splits) > 1 and all(set(own) == set(distinct) for own in names.values())
    where = "in every fold" if in_all else some(told, FOLDS_SHOWN)
    message = f"{counted(len(distinct), noun)} {matter} ({where})"
    return [Finding(severity, kind, message, distinct)]


def _repeated(splits: Splits) -> list[Finding]:
    def names(split: Split) -> list[str]:
        parts = [Counter(split.part(part)) for part in PARTS]
        return [slide for part in parts for slide, number in part.items() if number > 1]

    matter = "listed more than once in one part; delete the repeated cells"
    return _over_folds(splits, names, ("error", "repeated_slides", "slide", matter))


def _in_two_parts(splits: Splits, case_of: Mapping[str, str] | None) -> list[Finding]:
    """Slides, or where their cases are given cases, that are in more than one part of a fold."""

    def names(split: Split) -> list[str]:
        parts = Counter[str]()
        for part in PARTS:
            slides = split.part(part)
            own = slides if case_of is None else [case_of[it] for it in slides if it in case_of]
            parts.update(set(own))
        return [name for name, number in parts.items() if number > 1]

    step = "what is trained on is also judged on: draw the splits by patient"
    if case_of is None:
        matter = f"in two parts of one fold, {step}"
        return _over_folds(splits, names, ("error", "shared_slides", "slide", matter))
    matter = f"with slides in two parts of one fold, {step}"
    return _over_folds(splits, names, ("error", "shared_cases", "case", matter))


def _unlabelled(splits: Splits, case_of: Mapping[str, str]) -> list[Finding]:
    matter = "without a label; they take no part: add them to the table, or draw the splits anew"
    said: tuple[Severity, str, str, str] = ("warning", "unlabelled", "slide", matter)
    return _over_folds(
        splits, lambda split: (it for it in _all_slides(split) if it not in case_of), said
    )


def _without_features(splits: Splits, features: frozenset[str]) -> list[Finding]:
    matter = "without features; they take no part: extract theirs, or draw the splits anew"
    said: tuple[Severity, str, str, str] = ("warning", "without_features", "slide", matter)
    return _over_folds(
        splits, lambda split: (it for it in _all_slides(split) if it not in features), said
    )


def _in_no_part(splits: Splits, case_of: Mapping[str, str]) -> list[Finding]:
    matter = "of the table in no part; expected where labels are thinned out (--label-frac)"
    said: tuple[Severity, str, str, str] = ("note", "in_no_part", "slide", matter)
    return _over_folds(splits, lambda split: case_of.keys() - set(_all_slides(split)), said)


def _empty_parts(
    splits: Splits, case_of: Mapping[str, str] | None, features: frozenset[str] | None
) -> list[Finding]:
    empty = []
    for fold, split in splits.items():
        for part in PARTS:
            slides = split.part(part)
            usable = [
                slide
                for slide in slides
                if (case_of is None or slide in case_of) and (features is None or slide in features)
            ]
            if not usable:
                why = f" ({counted(len(slides), 'slide')}, none usable)" if slides else ""
                empty.append(f"fold {fold} {part}{why}")
    if not empty:
        return []
    message = (
        f"{counted(len(empty), 'part')} without a slide to use: {some(empty, FOLDS_SHOWN)}; every "
        "part needs some: train to learn, val to stop, test to judge"
    )
    return [Finding("error", "empty_parts", message)]


def _test_overlap(splits: Splits, case_of: Mapping[str, str] | None) -> list[Finding]:
    tests = {
        fold: {(case_of or {}).get(slide, slide) for slide in split.test}
        for fold, split in splits.items()
    }
    if len(tests) < 2:
        return []
    in_folds = Counter(name for own in tests.values() for name in own)
    shared = tuple(sorted(name for name, number in in_folds.items() if number > 1))
    noun = "slide" if case_of is None else "case"
    if not shared:
        return []
    if len(set(map(frozenset, tests.values()))) == 1:
        message = (
            f"all {len(tests)} folds have the same test part ({counted(len(shared), noun)}): one "
            "held-out test set"
        )
        return [Finding("note", "one_test_set", message)]
    message = (
        f"{counted(len(shared), noun)} of {len(in_folds):,} in the test parts of several folds: "
        "as Monte Carlo splits are (CLAM, CRANE), but their folds are not independent, and a mean "
        "over them is surer than it looks; --method kfold draws disjoint test parts"
    )
    return [Finding("warning", "test_overlap", message, shared)]


def _check_classes(
    splits: Splits, cohort: Cohort, features: frozenset[str] | None
) -> list[Finding]:
    """Parts of one class, and parts that lack a class, task by task."""
    row_of = {
        slide: row
        for row, slide in enumerate(cohort.slide_ids)
        if features is None or slide in features
    }
    alone: dict[Part, list[str]] = {part: [] for part in PARTS}
    lacking: list[str] = []
    for fold, split in splits.items():
        for part in PARTS:
            rows = [row_of[slide] for slide in split.part(part) if slide in row_of]
            if not rows:
                continue
            for place, task in enumerate(cohort.task_set.tasks):
                there = set(cohort.labels_ST[rows, place].tolist()) - {MISSING}
                absent = [it for index, it in enumerate(task.classes) if index not in there]
                if len(there) < 2:
                    only = ", ".join(task.classes[index] for index in there) or "no label"
                    alone[part].append(f"fold {fold} {part}, task {task.name}: {only}")
                elif absent:
                    lacks = some(absent)
                    lacking.append(f"fold {fold} {part}, task {task.name}: no {lacks}")
    return [
        *_one_class("error", alone["train"], "nothing can be learnt there"),
        *_one_class("warning", alone["val"] + alone["test"], "AUC is not defined there"),
        *_lacking(lacking),
    ]


def _one_class(severity: Severity, told: list[str], so: str) -> list[Finding]:
    if not told:
        return []
    message = (
        f"{counted(len(told), 'part')} with less than two classes ({some(told, PARTS_SHOWN)}): "
        f"{so}; draw stratified splits, or fewer folds"
    )
    return [Finding(severity, "one_class_parts", message)]


def _lacking(told: list[str]) -> list[Finding]:
    if not told:
        return []
    message = (
        f"{counted(len(told), 'part')} without one of the classes ({some(told, PARTS_SHOWN)}): "
        "metrics leave it out there; draw stratified splits, or fewer folds"
    )
    return [Finding("warning", "absent_classes", message)]
