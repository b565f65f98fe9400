"""Runs that look finished: what they promise is there, and their record."""

from __future__ import annotations

from difftract_bids.bids.plan import Plan
from difftract_bids.bids.records import new_record, record_path
from difftract_bids.bids.runs import DWIRun
from difftract_bids.io.atomic import write_json, write_text_atomic


def finish(plan: Plan, run: DWIRun, *, logs: str = "u") -> None:
    """Leave behind what a run promises, its record, and the settings among its logs."""
    for path in plan.promised(run):
        (plan.output_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (plan.output_dir / path).write_text("x")
    (plan.output_dir / "logs" / logs).mkdir(parents=True, exist_ok=True)
    write_text_atomic(plan.output_dir / "logs" / logs / "config.toml", plan.config.to_toml())
    write_json(plan.output_dir / record_path(run.stem), new_record(plan, run, run_uuid=logs))
