"""The files in `examples/scheduling` are valid for their schedulers and for capt."""

import configparser
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
import yaml

SCHEDULING = Path(__file__).parents[2] / "examples" / "scheduling"


def test_the_kubernetes_job_runs_alone_and_does_not_retry_permanent_errors() -> None:
    job = yaml.safe_load((SCHEDULING / "cronjob.yaml").read_text())
    assert (job["kind"], job["spec"]["concurrencyPolicy"]) == ("CronJob", "Forbid")
    spec = job["spec"]["jobTemplate"]["spec"]
    [container] = spec["template"]["spec"]["containers"]
    assert container["command"][:2] == ["capt", "retrain"]
    [rule] = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 3]}
    mounts = {one["name"] for one in container["volumeMounts"]}
    assert mounts == {one["name"] for one in spec["template"]["spec"]["volumes"]}


def test_the_service_and_the_timer_are_valid_units() -> None:
    units = {}
    for suffix in ("service", "timer"):
        units[suffix] = configparser.ConfigParser(strict=True, interpolation=None)
        units[suffix].optionxform = str
        units[suffix].read_string((SCHEDULING / f"capt-retrain.{suffix}").read_text())
    assert " retrain " in units["service"]["Service"]["ExecStart"]
    assert units["service"]["Service"]["SuccessExitStatus"] == "5"
    assert units["timer"]["Timer"]["OnCalendar"] == "Mon 03:00"


def test_the_cron_line_has_five_time_fields_and_the_command() -> None:
    [line] = [one for one in (SCHEDULING / "crontab").read_text().splitlines() if re.match(r"[\d*]", one)]
    assert re.fullmatch(r"(?:[\d*,/-]+ ){5} ?cd \S+ && \S+/capt retrain \S+ --quiet", line)


def test_the_cloud_scheduler_script_is_valid() -> None:
    subprocess.run(["bash", "-n", str(SCHEDULING / "cloud_scheduler.sh")], check=True)


def test_the_airflow_dag_is_valid() -> None:
    pytest.importorskip("airflow", reason="Airflow is not installed")
    spec = importlib.util.spec_from_file_location("airflow_dag", SCHEDULING / "airflow_dag.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.dag.validate()
    [task] = module.dag.tasks
    assert "capt retrain" in task.bash_command
    assert task.skip_on_exit_code == [5]
