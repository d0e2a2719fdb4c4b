"""Retrains a model every Monday with Airflow 3.

Exit code 5 (another retraining is running) skips the task. Any other code except 0 fails it. An interrupted task is
retried and resumes. The last line of the output is JSON and becomes the XCom of the task.
"""

import json
from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="capt_retrain",
    schedule="0 3 * * 1",
    start_date=datetime(2026, 1, 5),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=15)},
) as dag:
    retrain = BashOperator(
        task_id="retrain",
        bash_command="capt retrain {{ var.value.capt_retrain_config }} --json",
        skip_on_exit_code=5,
        output_processor=json.loads,
        execution_timeout=timedelta(hours=12),
    )
