"""What the command line says where nobody reads it but programs: a line of JSON a record."""

import io
import logging
import sys

from rich.text import Text

from crane_ray import storage
from crane_ray.cli.console import PacedReporter, console
from crane_ray.logs import LogLevel, write_json
from crane_ray.runtime.job_logs import ray_fields
from crane_ray.runtime.reporting import Summary

log = logging.getLogger(__name__)


def speak_json(level: LogLevel) -> None:
    """From now on all that this process says on stdout is a line of JSON a record.

    What verbs print for people comes as records, too, a line each.
    """
    write_json(sys.stdout, level, more=ray_fields)
    console.file = _Lines()


class _Lines(io.StringIO):
    """Takes what is printed, and logs each line of it."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = ""

    def write(self, text: str, /) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            plain = Text.from_ansi(line).plain.strip()
            if plain:
                log.info(plain, extra={"event": "text"})
        return len(text)


class RecordReporter(PacedReporter):
    """A record each time, and for each failure."""

    def note(self, text: str) -> None:
        """See `Reporter`."""
        log.warning(text, extra={"event": "note"})

    def failure(self, slide_id: str, reason: str) -> None:
        """See `Reporter`."""
        more = {"event": "failure", "slide_id": slide_id, "reason": reason}
        log.error("slide %s: %s", slide_id, reason, extra=more)

    def _say(self, event: str) -> None:
        pace = self._pace
        left_s = pace.left_s()
        more = {
            "event": event,
            "stage": self._title,
            "slides": pace.slides,
            "of_slides": pace.of_slides,
            "patches": pace.patches,
            "of_patches": pace.of_patches,
            "failures": pace.failures,
            "patches_per_s": round(pace.rate, 1),
            "left_s": None if left_s is None else round(left_s),
            "limit": pace.limit,
        }
        log.info("%s: %s", self._title, pace.words(), extra=more)


def log_summary(summary: Summary) -> None:
    """The end of a run: a record for each slide that is not in the result, and one for all."""
    run = {"run_id": storage.name_of(summary.manifest).removesuffix(".json")}
    for slide in summary.left_out:
        failed = slide.status == "failed"
        more = {"event": "left_out", **run, **slide.model_dump()}
        level = logging.ERROR if failed else logging.INFO
        log.log(level, "slide %s: %s: %s", slide.slide_id, slide.status, slide.reason, extra=more)
    end = {
        "event": "end",
        **run,
        "verb": summary.verb,
        "results": summary.where,
        **summary.counts(),
    }
    end |= {"seconds": summary.seconds, "manifest": summary.manifest, "verdict": summary.verdict}
    log.info("crane-ray %s: %s", summary.verb, summary.verdict or "over", extra=end)
