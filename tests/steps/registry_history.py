"""A witness inside the database of an MLflow server: every change of aliases, locks and versions, in the order of commits.

It is independent of the code under test, of MLflow's client and of its server: PostgreSQL itself writes it, by triggers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# what is noted is numbered under a lock that is held until commit, so numbers stand in the order of commits
_WITNESS = """
CREATE TABLE IF NOT EXISTS witness (number bigserial, at double precision, kind text, name text, what text, value text);
CREATE OR REPLACE FUNCTION witness_note(kind text, name text, what text, value text) RETURNS void AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(4711);
  INSERT INTO witness (at, kind, name, what, value)
    VALUES (extract(epoch FROM clock_timestamp()), kind, name, what, value);
END $$ LANGUAGE plpgsql;
CREATE OR REPLACE FUNCTION witness_alias() RETURNS trigger AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN PERFORM witness_note('alias', OLD.name, OLD.alias, NULL); RETURN OLD; END IF;
  PERFORM witness_note('alias', NEW.name, NEW.alias, NEW.version::text); RETURN NEW;
END $$ LANGUAGE plpgsql;
CREATE OR REPLACE FUNCTION witness_model() RETURNS trigger AS $$
BEGIN PERFORM witness_note('model', NEW.name, '', NULL); RETURN NEW; END $$ LANGUAGE plpgsql;
CREATE OR REPLACE FUNCTION witness_tag() RETURNS trigger AS $$
BEGIN PERFORM witness_note('tag', NEW.name, NEW.version || ' ' || NEW.key, NEW.value); RETURN NEW; END $$ LANGUAGE plpgsql;
CREATE OR REPLACE TRIGGER witness_alias AFTER INSERT OR UPDATE OR DELETE ON registered_model_aliases
  FOR EACH ROW EXECUTE FUNCTION witness_alias();
CREATE OR REPLACE TRIGGER witness_model AFTER INSERT ON registered_models FOR EACH ROW EXECUTE FUNCTION witness_model();
CREATE OR REPLACE TRIGGER witness_tag AFTER INSERT OR UPDATE ON model_version_tags
  FOR EACH ROW EXECUTE FUNCTION witness_tag();
"""


@dataclass(frozen=True)
class Move:
    """The alias was set to a version, or taken away: ``version`` is ``None`` then. ``at``: seconds since 1970."""

    version: str | None
    at: float


class History:
    """Reads what the witness wrote."""

    def __init__(self, store: str) -> None:
        self.store = store.replace("+psycopg2", "")
        with self._cursor() as cursor:
            cursor.execute(_WITNESS)

    def moves(self, name: str, alias: str = "champion") -> list[Move]:
        """Every move of a model's alias, also back and away; setting it to where it is is none."""
        found = [Move(value, at) for at, _, value in self._rows("alias", name) if _ == alias]
        return [
            move for before, move in zip([Move(None, 0.0), *found], found, strict=False) if before.version != move.version
        ]

    def epochs(self, name: str) -> list[float]:
        """When each promotion lock of a model was taken, in seconds since 1970."""
        return [at for at, _, _ in self._rows("model", f"{name}.promotion-lock.%")]

    def noted(self, name: str, version: str, key: str) -> bool:
        """Whether a tag of a version was ever written."""
        return any(what == f"{version} {key}" for _, what, _ in self._rows("tag", name))

    def _rows(self, kind: str, name: str) -> list[tuple[float, str, str | None]]:
        with self._cursor() as cursor:
            cursor.execute(
                "SELECT at, what, value FROM witness WHERE kind = %s AND name LIKE %s ORDER BY number", (kind, name)
            )
            return list(cursor.fetchall())

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        import psycopg2

        connection = psycopg2.connect(self.store)
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()
