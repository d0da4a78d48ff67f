"""Run tests against the mutants of `mutants.toml`, many in one session: `make mutants`.

A mutant is one piece of code, changed so that it would let somebody do more. No file is touched: the functions of
the imported module get the code of the changed source for the length of one test. A test that killed a mutant runs
once more on the code as it is, so that a failure is the mutant's and not what another one left behind.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from sqlalchemy import TextClause

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.toml")
_CONSTANTS = (str, int, float, tuple, frozenset)


@dataclass(frozen=True)
class Mutant:
    """One change: the text `was` of `file` becomes `becomes`. `survives` says why no test can notice, if none can."""

    number: int
    file: str
    was: str
    becomes: str
    opens: str
    tests: tuple[str, ...]
    survives: str = ""

    @property
    def name(self) -> str:
        """How reports and `--mutants` call it."""
        return f"{self.file.removeprefix('broker/').removesuffix('.py')}-{self.number}"

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The imported module behaves like the changed source until the end of the block."""
        module = importlib.import_module(self.file.removesuffix(".py").replace("/", "."))
        changed = {"__name__": module.__name__, "__file__": module.__file__, "__package__": module.__package__}
        exec(_changed(self), changed)  # noqa: S102  our own source
        functions = list(_pairs(vars(module), changed, module))
        constants = {name: vars(module)[name] for name, value in changed.items() if _differs(module, name, value)}
        kept = [
            (function, function.__code__, function.__defaults__, function.__kwdefaults__) for function, _ in functions
        ]
        for function, other in functions:
            function.__code__, function.__defaults__ = other.__code__, other.__defaults__
            function.__kwdefaults__ = other.__kwdefaults__
        vars(module).update({name: changed[name] for name in constants})
        try:
            yield
        finally:
            vars(module).update(constants)
            for function, code, defaults, keyword_defaults in kept:
                function.__code__, function.__defaults__ = code, defaults
                function.__kwdefaults__ = keyword_defaults


@cache
def _changed(mutant: Mutant) -> CodeType:
    """The changed source, compiled.

    Raises:
        pytest.UsageError: the text is not there exactly once, or what it becomes is no Python.
    """
    source = (ROOT / mutant.file).read_text()
    if source.count(mutant.was) != 1 or mutant.was == mutant.becomes:
        raise pytest.UsageError(f"{mutant.name}: found {source.count(mutant.was)} times, not once: {mutant.was!r}")
    try:
        return compile(source.replace(mutant.was, mutant.becomes), mutant.file, "exec")
    except SyntaxError as error:
        raise pytest.UsageError(f"{mutant.name}: {error}") from error


def _pairs(
    now: dict[str, Any], changed: dict[str, Any], module: ModuleType
) -> Iterator[tuple[FunctionType, FunctionType]]:
    """Each function of the module or of its classes, with the one of the same name in the changed source."""
    for name, value in changed.items():
        one, other = _function(now.get(name)), _function(value)
        if one and other and one.__module__ == module.__name__:
            yield one, other
        elif isinstance(value, type) and value.__module__ == module.__name__ and isinstance(now.get(name), type):
            yield from _pairs(dict(vars(now[name])), dict(vars(value)), module)


def _function(value: object) -> FunctionType | None:
    if isinstance(value, property):
        value = value.fget
    found = inspect.unwrap(getattr(value, "__func__", value))  # type: ignore[arg-type]
    return found if isinstance(found, FunctionType) else None


def _differs(module: ModuleType, name: str, value: object) -> bool:
    before = vars(module).get(name)
    if isinstance(value, TextClause) and isinstance(before, TextClause):
        return before.text != value.text
    return type(before) is type(value) and isinstance(value, _CONSTANTS) and before != value and name[:2] != "__"


def read() -> list[Mutant]:
    """The mutants of the list."""
    entries = tomllib.loads(LIST.read_text())["mutant"]
    return [Mutant(number, **entry | {"tests": tuple(entry["tests"])}) for number, entry in enumerate(entries, 1)]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--mutants PATTERN`: only those in whose name or `opens` it is."""
    parser.addoption("--mutants", default="", help="only mutants in whose name or `opens` this regular expression is")


def pytest_configure(config: pytest.Config) -> None:
    """Register the session's run, and collect the files it needs."""
    pattern = re.compile(config.getoption("--mutants"))
    mutants = [mutant for mutant in read() if pattern.search(f"{mutant.name}: {mutant.opens}")]
    if not mutants:
        raise pytest.UsageError("no mutant is called so")
    for mutant in mutants:
        _changed(mutant)
    config.args[:] = sorted({test.partition("::")[0] for mutant in mutants for test in mutant.tests})
    config.pluginmanager.register(Run(mutants))


class Run:
    """One session: which mutants are dead, and of what."""

    def __init__(self, mutants: list[Mutant]) -> None:
        self.mutants = mutants
        self.killed: dict[Mutant, str] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each test once for each mutant that names it or its file, and at last on the code as it is."""
        test = metafunc.definition.nodeid
        meant = [one for one in self.mutants if any(test == name or test.startswith(f"{name}::") for name in one.tests)]
        if meant:
            names = [*(one.name for one in meant), "unchanged"]
            metafunc.parametrize("mutant", [*meant, None], ids=names, indirect=True)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out tests that no mutant names.

        Raises:
            pytest.UsageError: a mutant names a test that is not there.
        """
        meant = [item for item in items if "mutant" in _params(item)]
        reached = {one for item in meant if (one := _params(item)["mutant"]) is not None}
        if unreached := [one.name for one in self.mutants if one not in reached]:
            raise pytest.UsageError(f"no test of these is there: {', '.join(unreached)}")
        config.hook.pytest_deselected(items=[item for item in items if item not in meant])
        items[:] = meant

    @pytest.fixture(autouse=True)
    def mutant(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """Let the test run on the mutant it is parametrized with; None: on the code as it is.

        Nothing is spent on a mutant that is dead already, nor on a test that killed none.
        """
        one, test = request.param, request.node.nodeid.partition("[")[0]
        if one in self.killed if one else all(test != by.partition(": ")[0] for by in self.killed.values()):
            pytest.skip("nothing to learn from it")
        if one is None:
            yield
            return
        with one.applied():
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A failure on a mutant is what is wanted."""
        report = yield
        one = _params(item)["mutant"]
        if one is not None and report.failed:
            self.killed.setdefault(one, f"{item.nodeid.partition('[')[0]}: {_last_line(report)}")
            report.outcome, report.longrepr = "passed", None
        return report

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail for every mutant that lives and is not known to."""
        if any((one in self.killed) == bool(one.survives) for one in self.mutants):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say of each mutant whether a test noticed it."""
        say = terminalreporter.write_line
        for one in self.mutants:
            if one in self.killed:
                say(
                    f"killed    {one.name}: {self.killed[one]}"
                    + (" (listed as one that survives)" if one.survives else "")
                )
            else:
                say(f"{'known    ' if one.survives else 'SURVIVED '} {one.name}: {one.survives or one.opens}")
        say(f"{len(self.killed)} of {len(self.mutants)} mutants were killed.")


def _params(item: pytest.Item) -> dict[str, Any]:
    return getattr(getattr(item, "callspec", None), "params", {})


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).splitlines()[0][:120]
