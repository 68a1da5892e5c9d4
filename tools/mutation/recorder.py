"""A pytest plugin that notes which test runs which lines of the package, and how long each takes: `pytest -p recorder`."""

import json
import os

import coverage
import pytest


class _Recorder:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.lines = coverage.Coverage(data_file=os.environ["MUTANTS_DATA"], data_suffix=True, source=[os.environ["MUTANTS_SOURCE"]])
        self.lines.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.lines.switch_context(item.nodeid)
        os.environ["MUTANTS_TEST"] = item.nodeid  # for the processes that it starts
        try:
            return (yield)
        finally:
            del os.environ["MUTANTS_TEST"]
            self.lines.switch_context("")

    def pytest_runtest_logreport(self, report):
        if report.outcome == "failed":
            self.seconds[report.nodeid] = float("inf")  # no fault makes it fail anew
        else:
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self):
        self.lines.stop()
        self.lines.save()
        with open(os.environ["MUTANTS_SECONDS"], "w") as file:
            json.dump(self.seconds, file)


def pytest_configure(config):
    """What pytest calls."""
    config.pluginmanager.register(_Recorder())
