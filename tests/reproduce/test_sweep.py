"""Plans that survive failures, interrupts and killed processes."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from ciper.reproduce import sweep as module
from ciper.reproduce.sweep import Report, sweep

quiet = partial(sweep, progress=False)


@dataclass(frozen=True)
class Job:
    number: int
    kind: str = "good"

    @property
    def name(self):
        return f"{self.kind}-{self.number}"


def done(job):
    return Path(job.name).exists()


def work(job):
    with open("began", "a") as file:
        file.write(f"{job.name}\n")
    if job.kind == "bad":
        raise ValueError("first line\nsecond line")
    if job.kind == "interrupt":
        raise KeyboardInterrupt
    if job.kind == "late":
        raise TimeoutError
    Path(job.name).write_text("result")


def began():
    path = Path("began")
    return path.read_text().split() if path.exists() else []


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_jobs_run_in_the_order_given():
    report = quiet([Job(2), Job(0), Job(1)], work, done)
    assert began() == ["good-2", "good-0", "good-1"]
    assert report.finished == ("good-2", "good-0", "good-1")


def test_finished_jobs_are_skipped():
    quiet([Job(0)], work, done)
    report = quiet([Job(0), Job(1)], work, done)
    assert report.skipped == ("good-0",) and report.finished == ("good-1",)
    assert began() == ["good-0", "good-1"]


def test_equal_jobs_run_once():
    report = quiet([Job(0), Job(1), Job(0)], work, done)
    assert began() == ["good-0", "good-1"]
    assert report.finished == ("good-0", "good-1")


def test_equal_jobs_are_skipped_once():
    Path("good-0").touch()
    assert quiet([Job(0), Job(0)], work, done).skipped == ("good-0",)


def test_different_jobs_of_one_name_are_refused_before_any_runs():
    with pytest.raises(ValueError, match="differ, got two jobs 'good-1'"):
        quiet([Job(0), Job(1), Job("1")], work, done)
    assert began() == []


def test_the_others_go_on_after_a_failure():
    report = quiet([Job(0), Job(1, "bad"), Job(2)], work, done)
    assert report.finished == ("good-0", "good-2")
    assert not report.ok


def test_a_failure_is_told_in_one_line_with_its_place():
    report = quiet([Job(1, "bad")], work, done)
    line = work.__code__.co_firstlineno + 4
    error = f"ValueError: first line (test_sweep.py:{line})"
    assert report.failed == {"bad-1": error}


class Wordless(Exception):
    def __str__(self):
        raise LookupError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SystemExit(3), "SystemExit: 3 ("),
        (SystemExit(), "SystemExit: no message ("),
        (GeneratorExit("x"), "GeneratorExit: x ("),
        (MemoryError(), "MemoryError: no message ("),
        (RecursionError("too deep"), "RecursionError: too deep ("),
        (Wordless(), "Wordless: no message ("),
        (ValueError("\n\n  \n"), "ValueError: no message ("),
        (ValueError("a\x1b[2Kb\rc\nd"), "ValueError: a\\x1b[2Kb ("),
        (OSError(2, "none", "a\n\udcff"), "[Errno 2] none: 'a\\n\\udcff' ("),
        (
            BaseExceptionGroup("two", [ValueError(), SystemExit()]),
            "BaseExceptionGroup: two (2 sub-exceptions) (",
        ),
    ],
)
def test_whatever_a_job_raises_is_one_line_and_the_others_go_on(error, told):
    def odd(job):
        if job.number == 0:
            raise error
        work(job)

    report = quiet([Job(0), Job(1)], odd, done)
    assert report.finished == ("good-1",)
    assert told in report.failed["good-0"]
    assert report.failed["good-0"].isprintable()


def test_a_name_of_a_job_cannot_forge_a_line(capsys):
    @dataclass(frozen=True)
    class Odd:
        name: str = "a\nciper: error: \x1b[31mforged\udcff"

    def fail(job):
        raise ValueError

    report = sweep([Odd()], fail, lambda job: False)
    for shown in (str(report), capsys.readouterr().err):
        assert "a\\nciper: error: \\x1b[31mforged\\udcff" in shown
        assert not any(x.startswith("ciper:") for x in shown.splitlines())


def test_an_error_without_a_message_is_told_too():
    def fail(job):
        raise RuntimeError

    report = quiet([Job(0)], fail, done)
    assert report.failed["good-0"].startswith("RuntimeError: no message (")


def test_a_failed_job_is_tried_again_by_the_next_sweep():
    quiet([Job(1, "bad")], work, done)
    report = quiet([Job(1, "bad")], lambda job: Path(job.name).touch(), done)
    assert report.ok and report.finished == ("bad-1",)


IN_TIME = {"later": (TimeoutError,)}
LATE = [Job(1), Job(4, "late"), Job(5)]


def test_when_time_is_up_nothing_has_failed_and_nothing_more_is_begun():
    report = quiet(LATE, work, done, **IN_TIME)
    assert report.finished == ("good-1",) and not report.failed
    assert report.later == ("late-4", "good-5") and not report.ok
    assert str(report) == "1 finished, 2 to be done later; took 0:00:00"
    assert began() == ["good-1", "late-4"]


def test_the_same_sweep_goes_on_when_there_is_time():
    quiet(LATE, work, done, **IN_TIME)
    report = quiet(LATE, lambda job: Path(job.name).touch(), done, **IN_TIME)
    assert report.ok and report.skipped == ("good-1",)
    assert report.finished == ("late-4", "good-5") and not report.later


def test_a_timeout_that_was_not_announced_is_a_failure():
    report = quiet(LATE, work, done)
    assert report.finished == ("good-1", "good-5") and not report.later
    assert report.failed["late-4"].startswith("TimeoutError: ")


def test_an_interrupt_is_raised_again_and_stops_the_sweep():
    with pytest.raises(KeyboardInterrupt):
        quiet([Job(0), Job(1, "interrupt"), Job(2)], work, done)
    assert began() == ["good-0", "interrupt-1"]


def test_a_sweep_goes_on_after_an_interrupt():
    jobs = [Job(0), Job(1, "interrupt"), Job(2)]
    with pytest.raises(KeyboardInterrupt):
        quiet(jobs, work, done)
    report = quiet(jobs, lambda job: Path(job.name).touch(), done)
    assert report.skipped == ("good-0",)
    assert report.finished == ("interrupt-1", "good-2")


def test_a_job_that_somebody_else_finished_meanwhile_is_not_repeated():
    def work_for_two(job):
        work(job)
        Path("good-1").touch()

    report = quiet([Job(0), Job(1)], work_for_two, done)
    assert began() == ["good-0"]
    assert report.finished == ("good-0", "good-1")


def test_a_job_that_leaves_no_result_has_failed():
    report = quiet([Job(0)], lambda job: None, done)
    assert "its result is not there" in report.failed["good-0"]


def test_an_empty_plan_is_finished():
    report = quiet([], work, done)
    assert report.ok and str(report) == "0 finished; took 0:00:00"


@pytest.mark.parametrize("cost", [0, -1.0, float("nan"), float("inf")])
def test_a_cost_must_be_positive(cost):
    with pytest.raises(ValueError, match="cost of good-0 must be > 0, got"):
        quiet([Job(0)], work, done, cost=lambda job: cost)
    assert began() == []


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="local or ray, got 'slurm'"):
        quiet([Job(0)], work, done, engine="slurm")


def test_a_missing_ray_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'install "ciper-book\[cluster\]"'
    ):
        quiet([Job(0)], work, done, engine="ray")


def test_ray_is_not_needed_when_nothing_is_left(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    quiet([Job(0)], work, done)
    assert quiet([Job(0)], work, done, engine="ray").skipped == ("good-0",)


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConnectionError, match="RAY_ADDRESS=127.0.0.1:9 "):
        quiet([Job(0)], work, done, engine="ray")


def test_the_report_lists_failures_one_a_line():
    report = Report(("a", "b"), ("c",), {"d": "E: x", "e": "F: y"}, 3725.4)
    assert str(report).splitlines() == [
        "2 finished, 1 done before, 2 failed; took 1:02:05",
        "  d: E: x",
        "  e: F: y",
    ]


class Clock:
    """A minute passes for each unit of cost."""

    now = 1000.0

    def work(self, job):
        self.now += 60 * job.number
        work(job)


@pytest.fixture
def lines(monkeypatch, capsys):
    """What the progress line shows after each of some jobs."""

    def run(jobs, **options):
        clock = Clock()
        monkeypatch.setattr("tqdm.std.time", lambda: clock.now)
        sweep(jobs, clock.work, done, **options)
        return capsys.readouterr().err.split("\r")

    return run


def test_the_time_left_is_weighted_by_cost(lines):
    shown = lines([Job(1), Job(9), Job(30)], cost=lambda job: job.number)
    assert any("01:00 gone, 39:00 to go, 2 left" in line for line in shown)
    assert any("10:00 gone, 30:00 to go, 1 left" in line for line in shown)


def test_jobs_cost_the_same_unless_told(lines):
    shown = lines([Job(1), Job(9), Job(30)])
    assert any("01:00 gone, 02:00 to go, 2 left" in line for line in shown)


def test_a_failure_shortens_the_rest_and_is_shown_at_once(lines):
    jobs = [Job(1), Job(4, "bad"), Job(5)]
    shown = lines(jobs, cost=lambda job: job.number)
    assert any("bad-4 failed: ValueError" in line for line in shown)
    assert any("05:00 gone, 25:00 to go, 1 left" in line for line in shown)


def test_what_is_left_for_later_is_not_shown_as_failed(lines):
    shown = lines(LATE, cost=lambda job: job.number, **IN_TIME)
    assert any("01:00 gone" in line for line in shown)
    assert not any("failed" in line for line in shown)


def test_what_was_done_before_does_not_count(lines):
    Path("good-9").touch()
    shown = lines([Job(1), Job(9), Job(2)], cost=lambda job: job.number)
    assert any("01:00 gone, 02:00 to go, 1 left" in line for line in shown)


def test_nothing_is_shown_without_progress(lines):
    assert lines([Job(0), Job(1, "bad")], progress=False) == [""]


def test_gpus_are_asked_for_where_there_are_any():
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}]
    assert module._resources(nodes, 4, None)["num_gpus"] == 1
    assert module._resources(nodes, 4, 0.5)["num_gpus"] == 0.5
    assert module._resources(nodes, 4, 0)["num_gpus"] == 0


def test_a_request_that_no_machine_can_meet_is_told():
    node = {"Alive": True, "Resources": {"CPU": 2.0}}
    with pytest.warns(UserWarning, match="with 3 CPUs and 0 GPUs"):
        module._resources([node, node], 3, None)


def test_a_job_computes_with_as_many_threads_as_processors(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = torch.get_num_threads()
    try:
        threads = module._on_worker(
            lambda job: str(torch.get_num_threads()), ".", 3, Job(0)
        )
    finally:
        torch.set_num_threads(before)
    assert threads == "3"


# A cluster of two nodes, whose workers are killed.

CPUS = 1
JOBS = [
    Job(0),
    Job(1, "killed"),  # while it works, from outside
    Job(2),
    Job(3, "suicide"),  # just after writing its result
    Job(4, "bad"),
    Job(5),
    Job(6, "late"),
]


def cluster_work(job):
    import ray

    write("began", job.name, os.getpid())
    if job.kind == "late":
        raise TimeoutError
    time.sleep(0.3)
    while job.kind == "killed" and not Path("was-killed").exists():
        time.sleep(0.05)
    while job.number == 0 and not Path("completed").exists():
        time.sleep(0.05)  # so that the other machine has to work, too
    if job.kind == "bad":
        raise ValueError("first line\nsecond line")
    node = ray.get_runtime_context().get_node_id()
    Path(job.name).write_text(f"{node} {os.environ['OMP_NUM_THREADS']}")
    write("completed", job.name)
    if job.kind == "suicide":
        os.kill(os.getpid(), signal.SIGKILL)


def write(file, *words):
    with open(file, "a") as lines:
        lines.write(" ".join(map(str, words)) + "\n")


def read(path):
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split() for line in lines]


def kill_worker(folder, ended):
    """Kill the process that works on the job that waits for it."""
    while not ended.wait(0.05):
        for name, pid in read(folder / "began"):
            if name == "killed-1":
                os.kill(int(pid), signal.SIGKILL)
                return (folder / "was-killed").touch()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a processor each, on this machine."""
    pytest.importorskip("ray")
    from ray import cloudpickle
    from ray.cluster_utils import Cluster

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    node = {"num_cpus": CPUS, "object_store_memory": 80 * 2**20}
    head = {"include_dashboard": False, "include_log_monitor": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "7")  # a sweep knows better
        nodes = Cluster(True, head_node_args={**node, **head})
        nodes.add_node(**node)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        nodes.shutdown()


@pytest.fixture(scope="module")
def swept(cluster, tmp_path_factory):
    """The report of a sweep with kills, and the folder it is about."""
    folder, ended = tmp_path_factory.mktemp("cluster"), threading.Event()
    killer = threading.Thread(target=kill_worker, args=[folder, ended])
    killer.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            how = dict(engine="ray", **IN_TIME)
            yield quiet(JOBS, cluster_work, done, **how), folder
    finally:
        ended.set()
        killer.join()


GOOD = [job.name for job in JOBS if job.kind not in ("bad", "late")]


def test_nothing_is_lost_when_workers_are_killed(swept):
    report, folder = swept
    assert sorted(report.finished) == sorted(GOOD)
    assert all((folder / name).exists() for name in GOOD)


def test_every_result_is_made_once(swept):
    _, folder = swept
    completed = [name for (name,) in read(folder / "completed")]
    assert sorted(completed) == sorted(GOOD)


def test_only_the_job_that_lost_its_process_began_twice(swept):
    _, folder = swept
    count = Counter(name for name, _ in read(folder / "began"))
    assert count.pop("killed-1") == 2
    assert set(count.values()) == {1}


def test_an_exception_on_the_cluster_is_not_retried_and_told_in_one_line(
    swept,
):
    report, _ = swept
    assert [*report.failed] == ["bad-4"]
    assert report.failed["bad-4"].startswith("ValueError: first line (test_")


def test_on_a_cluster_too_nothing_has_failed_when_time_is_up(swept):
    report, _ = swept
    assert report.later == ("late-6",)
    assert not report.ok


def test_both_machines_work_with_as_many_threads_as_processors(swept):
    _, folder = swept
    found = [(folder / name).read_text().split() for name in GOOD]
    assert len({node for node, _ in found}) == 2
    assert {threads for _, threads in found} == {str(CPUS)}


def test_the_connection_is_closed_after_the_sweep(swept):
    import ray

    assert not ray.is_initialized()


def test_no_process_of_a_job_outlives_the_sweep(swept):
    _, folder = swept
    pids = {int(pid) for _, pid in read(folder / "began")}
    assert len(pids) >= 3  # two were killed
    until = time.time() + 20
    while any(map(psutil.pid_exists, pids)) and time.time() < until:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, pids))


def test_no_process_outlives_the_cluster(cluster):
    session = cluster.head_node.get_session_dir_path()
    assert processes_of(session)
    cluster.shutdown()
    assert not processes_of(session)


def processes_of(session):
    """Command lines of the processes that Ray started for a session."""
    lines = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"])]
    return [line for line in lines if session in " ".join(line or [])]
