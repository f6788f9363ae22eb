"""Faults that a test orders of running workers, by files in a folder that all of them see.

Workers of a cluster that is up already take neither arguments nor environment from a test.
"""

import os
import time
from pathlib import Path

VARIABLE = "CRANE_TEST_FAULTS"
EVERYTHING = "everything"


def order(name: str) -> str:
    """What is ordered by that name; empty where nothing is, as after the tests that order."""
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return ""
    try:
        return Path(folder, name).read_text()
    except FileNotFoundError:
        return ""


def note(name: str, line: str) -> None:
    """Adds a line to a log; whole, whoever else writes, and there even if the process dies next."""
    log = os.open(Path(os.environ[VARIABLE], name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(log, f"{line}\n".encode())
    finally:
        os.close(log)


def hold(name: str) -> None:
    """Waits as long as a test orders that a name with certain words in it, or any, is held."""
    noted = False
    while (words := order("hold")) and (words == EVERYTHING or words in name):
        if not noted:
            note("held", f"{os.getpid()} {name}")
        noted = True
        time.sleep(0.02)


def first(name: str) -> bool:
    """True for the first process that asks, False for all others."""
    try:
        os.close(os.open(Path(os.environ[VARIABLE], name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
