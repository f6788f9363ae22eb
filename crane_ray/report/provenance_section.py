"""Where a run's results come from: what ran, with which settings, on which features."""

from collections.abc import Mapping
from typing import Any

import yaml

from crane_ray.pages.document import facts_table
from crane_ray.pages.drawing import element, escaped
from crane_ray.pages.wording import duration_text
from crane_ray.report.results import RunResults
from crane_ray.report.tables import Column, table


def provenance_section(run: RunResults) -> str:
    """The manifest in short, features and networks with their fingerprints, and the config."""
    parts = [facts_table(_facts(run))]
    features = run.facts.get("features") or {}
    if features:
        parts.append(element("h3", "Features") + facts_table(_features(features)))
    if run.checkpoints:
        rows = [[f"fold {fold}", print_ or "unknown"] for fold, print_ in run.checkpoints.items()]
        networks = table(
            [Column("network"), Column("fingerprint")], rows, caption="Networks", class_="classes"
        )
        parts.append(element("h3", "Networks") + networks)
    if run.config is not None:
        text = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
        code = element("pre", escaped(text), tabindex=0, aria_label="Config as YAML")
        parts.append(element("h3", "Config, defaults included") + code)
    return "".join(parts)


def _facts(run: RunResults) -> dict[str, str]:
    facts = {"folder": run.folder}
    manifest = run.manifest
    if manifest is None:
        return {**facts, "manifest": "none is there"}
    facts |= {
        "run": manifest.run_id,
        "started": manifest.started,
        "finished": manifest.finished or "did not finish",
        "took": "unknown" if manifest.seconds is None else duration_text(manifest.seconds),
        "outcome": manifest.outcome + (f": {manifest.error}" if manifest.error else ""),
        "config fingerprint": manifest.config_fingerprint,
    }
    versions = [f"{name} {version}" for name, version in manifest.versions.items()]
    facts["versions"] = ", ".join(versions)
    seed = (run.config or {}).get("training", {}).get("seed")
    if seed is not None:
        facts["seed"] = str(seed)
    if run.evaluation is not None:
        facts["bootstrap"] = (
            f"{run.evaluation.num_replicates:,} replicates, seed {run.evaluation.seed}"
        )
    judged = manifest.facts.get("checkpoints") or {}
    facts |= {f"network of fold {fold}": str(it.get("path", "")) for fold, it in judged.items()}
    return facts


def _features(features: Mapping[str, Any]) -> dict[str, str]:
    """Each source of features, as name and text."""
    found = {}
    for name, source in features.items():
        if not isinstance(source, Mapping):
            continue
        recipe = source.get("recipe")
        known = f"recipe {source['recipe_fingerprint']}" if recipe else "recipe unknown"
        lines = [str(source.get("root", "")), f"{known}, content {source.get('identity', '')}"]
        if recipe:
            lines += [f"{part}: {_compact(held)}" for part, held in recipe.items()]
        found[str(name)] = "\n".join(lines)
    return found


def _compact(held: Any) -> str:
    """A part of a recipe in a line; what is not there is left out."""
    if not isinstance(held, Mapping):
        return str(held)
    return ", ".join(f"{key} {value}" for key, value in held.items() if value is not None)
