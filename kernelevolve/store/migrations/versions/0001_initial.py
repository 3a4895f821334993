"""Runs, steps, candidates, evaluations, calibrations, events, statistics and objects."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _create_roots()
    _create_steps()
    _create_evaluations()
    _create_logs()


def _create_roots() -> None:
    op.create_table(
        "objects",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_objects"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("target_digest", sa.String(), nullable=False),
        sa.Column("hardware_key", sa.String(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("proposer", sa.String(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("evals", sa.Integer(), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("record", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("name", name="uq_runs_name"),
        sa.ForeignKeyConstraint(["record"], ["objects.digest"], name="fk_runs_record"),
    )


def _create_steps() -> None:
    op.create_table(
        "candidates",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("record", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_candidates"),
        sa.ForeignKeyConstraint(["record"], ["objects.digest"], name="fk_candidates_record"),
    )
    op.create_index("ix_candidates_code", "candidates", ["code"])
    op.create_table(
        "steps",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("proposer", sa.String(), nullable=False),
        sa.Column("change", sa.String(), nullable=False),
        sa.Column("proposal", sa.String(), nullable=False),
        sa.Column("candidate", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("run", "number", name="pk_steps"),
        sa.ForeignKeyConstraint(["run"], ["runs.name"], name="fk_steps_run"),
        sa.ForeignKeyConstraint(["proposal"], ["objects.digest"], name="fk_steps_proposal"),
        sa.ForeignKeyConstraint(["candidate"], ["candidates.digest"], name="fk_steps_candidate"),
    )
    op.create_index("ix_steps_candidate", "steps", ["candidate"])


def _create_evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=True),
        sa.Column("fitness", sa.Double(), nullable=True),
        sa.Column("record", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.ForeignKeyConstraint(["run", "number"], ["steps.run", "steps.number"], name="fk_evaluations_run_number"),
        sa.ForeignKeyConstraint(["record"], ["objects.digest"], name="fk_evaluations_record"),
        sa.CheckConstraint("(outcome = 'passed') = (fitness IS NOT NULL)", name=op.f("ck_evaluations_fitness")),
        sa.CheckConstraint("(outcome = 'failed') = (stage IS NOT NULL)", name=op.f("ck_evaluations_stage")),
    )
    op.create_index("ix_evaluations_step", "evaluations", ["run", "number"])
    op.create_index(
        "uq_evaluations_search",
        "evaluations",
        ["run", "number"],
        unique=True,
        sqlite_where=sa.text("purpose = 'search'"),
    )


def _create_logs() -> None:
    op.create_table(
        "calibrations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("record", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_calibrations"),
        sa.ForeignKeyConstraint(["run"], ["runs.name"], name="fk_calibrations_run"),
        sa.ForeignKeyConstraint(["record"], ["objects.digest"], name="fk_calibrations_record"),
    )
    op.create_index("ix_calibrations_run", "calibrations", ["run"])
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.ForeignKeyConstraint(["run"], ["runs.name"], name="fk_events_run"),
    )
    op.create_index("ix_events_run", "events", ["run"])
    op.create_table(
        "statistics",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("run", "number", "name", name="pk_statistics"),
        sa.ForeignKeyConstraint(["run", "number"], ["steps.run", "steps.number"], name="fk_statistics_run_number"),
    )
