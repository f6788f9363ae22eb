"""What a reader must know beside each part of a report."""

from crane_ray.pages.drawing import element, escaped
from crane_ray.report.cohort_section import overlap_text
from crane_ray.report.forest_chart import groups_left_out
from crane_ray.report.results import RunResults, TaskResults

CURVES_NOTE = (
    "Thin lines are the folds, thick ones their vertical mean; the area below the mean is the mean "
    "of the folds' areas. Precision-recall curves are drawn in steps, since no threshold reaches "
    "what lies between two; the area is the average precision."
)


def split_note(split: str) -> str:
    """What the part that was judged means for the numbers."""
    if split == "val":
        return (
            "These are val parts: their loss chose each network's epoch, and temperatures and "
            "thresholds are fitted on them. They flatter: expect less of cases that nothing "
            "saw."
        )
    if split == "train":
        return (
            "These are the parts that networks were trained on: the numbers say nothing of others."
        )
    return ""


def intervals_note(run: RunResults) -> str:
    """What intervals are, and what they leave out."""
    evaluation = run.evaluation
    if evaluation is None:
        return "This run has no metrics.json; curves and matrices are made of its predictions."
    if not evaluation.num_replicates:
        return "No intervals were asked for (0 bootstrap replicates)."
    return (
        f"In brackets: 95 % percentile intervals of a bootstrap with {evaluation.num_replicates:,} "
        "replicates that draws patients with replacement, each with all its slides, and for a mean "
        "over folds once for all folds. They say how far a number would wander with other patients "
        "of the same kind, not with other networks, scanners or hospitals."
    )


def decisions_note(results: TaskResults) -> str:
    """What the confusion matrix counts."""
    several = len(results.folds) > 1
    rows, bags = len(results.rows), results.num_bags
    whose = "the decisions of all folds' networks added up" if several else "the decisions"
    counts = f"{rows:,} decisions on {bags:,} {results.bag}s"
    again = "; a bag that several folds judged counts as often" if rows > bags else ""
    return (
        f"The matrix has {whose} ({counts}{again}), each for the most probable class; shares are "
        "of the row, the true class. The histograms show how probabilities are spread by true "
        "class, each to its own height; the upright stroke is the median."
    )


def calibration_note(results: TaskResults) -> str:
    """What the reliability diagram shows."""
    several = ", the rows of all folds together" if len(results.folds) > 1 else ""
    return (
        f"Accuracy by confidence in 15 bins of equal width{several}; below the line the network "
        "is surer than it is right. Bars count the predictions of each bin. The temperature is "
        "fitted on each fold's val part. ECE is biased upwards where bins have few predictions, "
        "and more so in replicates: its interval may lie above it."
    )


def forest_note(results: TaskResults) -> str:
    """How to read folds and subgroups."""
    small = "; hollow ones are subgroups of fewer than 10 cases" if results.groups else ""
    many = (
        " Subgroups were looked at without correction for their number: a difference is a reason "
        "to look closer, no finding."
        if len(results.groups) > 1
        else ""
    )
    undefined, crowd = groups_left_out(results, "auc")
    if undefined:
        of = "all" if undefined == len(results.groups) else f"{undefined} of the"
        many += f" AUC needs two classes, and is undefined in {of} {len(results.groups)} subgroups."
    many += f" {crowd} more subgroups are in the table alone." if crowd else ""
    return (
        f"Diamonds are all, circles folds, squares subgroups{small}. Lines are 95 % intervals; the "
        f"dotted upright is the value of all.{many}"
    )


def training_note(run: RunResults) -> str:
    """What chose the weights."""
    stopping = (run.config or {}).get("training", {}).get("stopping", {})
    if stopping.get("enabled"):
        chosen = "Kept are the weights of the epoch with the lowest loss on the val part."
    else:
        chosen = "Kept are the weights of the last epoch: early stopping was off."
    return (
        f"{chosen} The loss of the training part is the mean while its weights change and with "
        "dropout, so that it is no like for like with that of the val part."
    )


def reading_list(run: RunResults) -> str:
    """What these numbers can and cannot say, as a list."""
    said = [
        "Research only, not for diagnosis. A network that does well here may fail with another "
        "scanner, stain, hospital or case mix.",
        intervals_note(run),
        overlap_text(run),
        "The standard deviation over folds (n \u2212 1) shows how much results differ between "
        "splits and networks; it is no confidence interval.",
        "A percentile bootstrap knows nothing worse than what was seen: with few patients, or "
        "where all are told apart without an error, intervals are too narrow.",
        "AUC and average precision do not depend on a threshold; average precision depends on the "
        "prevalence, and cannot be compared between cohorts of different prevalence. Of more than "
        "two classes they are one-vs-rest, and their mean is over the classes that are there.",
        "Youden's threshold and the temperature are fitted on each fold's own val part, never on "
        "the part that is judged.",
        "Attention says where a network looked relative to the rest of the slide. It is no "
        "probability of disease, and no explanation of the decision.",
    ]  # fmt: skip
    if not run.named_classes:
        said.insert(1, "The names of the classes were not found; they are called by their indices.")
    items = [element("li", escaped(text)) for text in said if text]
    return element("ul", *items, class_="reading")
