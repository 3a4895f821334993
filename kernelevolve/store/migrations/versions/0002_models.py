"""Questions to models and their answers, the order of arrivals, and what finds a duplicate before a build."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("candidates") as candidates:
        candidates.add_column(sa.Column("normal", sa.String(), nullable=True))
    op.create_index("ix_candidates_normal", "candidates", ["normal"])
    _create_exchanges()
    _create_mailbox()
    _create_arrivals()


def _create_exchanges() -> None:
    op.create_table(
        "asks",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("change", sa.String(), nullable=False),
        sa.Column("brief", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run", "number", name="pk_asks"),
        sa.ForeignKeyConstraint(["run"], ["runs.name"], name="fk_asks_run"),
        sa.ForeignKeyConstraint(["brief"], ["objects.digest"], name="fk_asks_brief"),
    )
    op.create_table(
        "exchanges",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.Column("record", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run", "number", "attempt", name="pk_exchanges"),
        sa.ForeignKeyConstraint(["run", "number"], ["asks.run", "asks.number"], name="fk_exchanges_run_number"),
        sa.ForeignKeyConstraint(["record"], ["objects.digest"], name="fk_exchanges_record"),
    )


def _create_mailbox() -> None:
    op.create_table(
        "questions",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("record", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run", "number", "attempt", name="pk_questions"),
        sa.ForeignKeyConstraint(["run"], ["runs.name"], name="fk_questions_run"),
        sa.ForeignKeyConstraint(["record"], ["objects.digest"], name="fk_questions_record"),
    )
    op.create_table(
        "answers",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("record", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run", "number", "attempt", name="pk_answers"),
        sa.ForeignKeyConstraint(
            ["run", "number", "attempt"],
            ["questions.run", "questions.number", "questions.attempt"],
            name="fk_answers_run_number_attempt",
        ),
        sa.ForeignKeyConstraint(["record"], ["objects.digest"], name="fk_answers_record"),
    )


def _create_arrivals() -> None:
    op.create_table(
        "arrivals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("evaluation", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_arrivals"),
        sa.ForeignKeyConstraint(["run"], ["runs.name"], name="fk_arrivals_run"),
        sa.ForeignKeyConstraint(["evaluation"], ["evaluations.id"], name="fk_arrivals_evaluation"),
    )
    op.create_index("ix_arrivals_run", "arrivals", ["run"])
    # Runs from before were judged in the order of their evaluations, and their asks were not kept.
    op.execute(
        "INSERT INTO arrivals (run, kind, number, evaluation) SELECT run, 'judged', number, id FROM evaluations"
        " WHERE purpose IN ('search', 'confirm') ORDER BY id"
    )
