# ruff: noqa: INP001 - a file for a dags folder, not part of a package
"""Airflow: the verify notebooks 05, 10 and 11 once a day, a task each. See docs/scheduled.md.

Put this file into Airflow's dags folder and set the three paths. It needs apache-airflow 3,
apache-airflow-providers-papermill, and a Jupyter kernel in which this project is installed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.sdk import DAG

PARAMS = "/etc/runbook/cluster.yaml"
NOTEBOOKS = "/opt/runbook/notebooks"
OUTPUT = "/var/lib/runbook/airflow"
KERNEL = "runbook"
#: They only look: nothing on a node is changed by them.
VERIFY = ("05_etcd_verify", "10_flannel_verify", "11_ping_mesh")

with DAG(
    dag_id="etcd_flannel_health",
    description="Verify notebooks of the etcd and flannel cluster",
    schedule="0 4 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 0, "execution_timeout": timedelta(minutes=10)},
) as dag:
    for name in VERIFY:
        # No task waits for another: each has its own say about the cluster.
        PapermillOperator(
            task_id=name,
            input_nb=f"{NOTEBOOKS}/{name}.ipynb",
            output_nb=f"{OUTPUT}/{name}-{{{{ ts_nodash }}}}.ipynb",
            kernel_name=KERNEL,
            parameters={"cluster": PARAMS, "approve": False},
        )
