"""A search as one HTML page: what was best, how it came about, and every trial."""

from collections import Counter
from collections.abc import Mapping

from crane_ray.pages.document import document, facts_table, figures, pair, section, wide
from crane_ray.pages.drawing import element, escaped
from crane_ray.pages.wording import duration_text
from crane_ray.search.charts import history_chart, importance_chart, learning_chart
from crane_ray.search.importance import Importance
from crane_ray.search.leaderboard import Leaderboard, Trial
from crane_ray.search.page_style import SCRIPT, STYLE
from crane_ray.search.page_tables import best_table, failures_table, trials_table
from crane_ray.search.parallel import parallel_chart
from crane_ray.search.wording import objective_text

STATUSES = ("done", "stopped", "failed", "unfinished")

PARAMS_NOTE = (
    "A line a trial, across its params to its objective: the darker the better, the best is "
    "thick. Lines through a choice are fanned out, so that none hides another. Axes are inferred "
    "from the values that trials had."
)
HISTORY_NOTE = (
    "Full dots are done, empty ones were stopped early, crosses failed, dashes did not end. The "
    "line is the best so far, the dashed one the default config."
)
LEARNING_NOTE = (
    "The ten best trials and, dashed, the default config. An empty end was stopped early; its "
    "objective might have risen."
)


def search_page(
    leaderboard: Leaderboard,
    *,
    title: str,
    facts: Mapping[str, str],
    importance: Importance | None,
) -> str:
    """The page, whole: it fetches nothing, and says all it has to say without its script.

    Args:
        leaderboard: the trials.
        title: of the page.
        facts: what was searched and where it came from, a name and a text each.
        importance: of the params; None where nobody asked.
    """
    drawn = bool(leaderboard.scored)
    parts = [
        element("h1", escaped(title) or "Search"),
        element("p", escaped(_lead(leaderboard)), class_="lead"),
        _figures(leaderboard),
        _caution(leaderboard),
        section(
            "Params and objective",
            PARAMS_NOTE if drawn else "",
            element("div", parallel_chart(leaderboard), class_="wide"),
        ),
        pair(
            section("History", HISTORY_NOTE if drawn else "", history_chart(leaderboard)),
            section("Learning curves", LEARNING_NOTE if drawn else "", learning_chart(leaderboard)),
        ),
        pair(_importance(importance), _best(leaderboard)),
        _trials(leaderboard),
        _failures(leaderboard),
        section("About this search", "", facts_table(facts), drawn=False) if facts else "",
    ]
    return document(title or "Search", element("main", *parts), style=STYLE, script=SCRIPT)


def _lead(leaderboard: Leaderboard) -> str:
    better = "highest" if leaderboard.mode == "max" else "lowest"
    num = len(leaderboard.trials)
    trials = {0: "No trial", 1: "One trial"}.get(num, f"{num} trials")
    return f"{trials} for the {better} {leaderboard.metric}."


def _figures(leaderboard: Leaderboard) -> str:
    best, default, gain = leaderboard.best, leaderboard.baseline_trial, leaderboard.gain
    counts: Counter[str] = Counter(trial.status for trial in leaderboard.trials)
    shown = [("Best", _score(best), f"trial {best.number}" if best else "no trial has a value")]
    if default is not None:
        shown.append(("Default config", _score(default), f"trial {default.number}"))
    if gain is not None:
        said = "over the default config" if gain > 0 else "no trial beat the default config"
        shown.append(("Gain", f"{'+' if gain > 0 else ''}{objective_text(gain)}", said))
    named = [f"{counts[status]}\u00a0{status}" for status in STATUSES if counts[status]]
    shown.append(("Trials", str(len(leaderboard.trials)), ", ".join(named)))
    spent = sum(trial.seconds for trial in leaderboard.trials)
    shown.append(("Time", duration_text(spent), "of all trials, added up"))
    return figures(shown)


def _caution(leaderboard: Leaderboard) -> str:
    num = len(leaderboard.scored)
    if num < 2:
        return ""
    return element(
        "p",
        f"The best of {num} values on the same data reads better than it is. Judge the config on "
        "data that no trial saw.",
        class_="note",
    )


def _importance(importance: Importance | None) -> str:
    if importance is None:
        return ""
    if importance.shares is None:
        return section("Importance", f"Not measured: {importance.reason}.", "")
    note = (
        f"What sets the best {importance.num_best} of {importance.num_trials} trials apart "
        "(PED-ANOVA): each param's share. Ranges are inferred from the values that trials "
        "had, and a param without a share may matter beyond them. Of stopped trials it "
        "counts what they had reached."
    )
    return section("Importance", note, importance_chart(importance))


def _best(leaderboard: Leaderboard) -> str:
    best = leaderboard.best
    if best is None or not leaderboard.param_paths():
        return ""
    note = f"Trial {best.number} ({best.trial_id}); what differs from the default config is bold."
    if leaderboard.baseline_trial in (None, best):
        note = f"Trial {best.number} ({best.trial_id})."
    return section("Best config", note, best_table(leaderboard, best))


def _trials(leaderboard: Leaderboard) -> str:
    if not leaderboard.trials:
        return ""
    same = len(leaderboard.param_paths()) - len(leaderboard.varied_paths())
    note = "Best first." + (
        f" {same} param{'s' if same > 1 else ''} the same in all trials "
        f"{'are' if same > 1 else 'is'} left out." if same else ""
    )  # fmt: skip
    table = wide("Leaderboard", trials_table(leaderboard))
    return section("Leaderboard", note, table, drawn=False)


def _failures(leaderboard: Leaderboard) -> str:
    table = failures_table(leaderboard)
    return section("What went wrong", "", table, drawn=False) if table else ""


def _score(trial: Trial | None) -> str:
    return "none" if trial is None or trial.score is None else objective_text(trial.score)
