"""Queries and inserts whose SQL is composed once per process and sent many times with other values.

Django composes a query's SQL anew each time, which takes several times as long as PostgreSQL needs to answer what every
request asks: whose token this is, and which role its owner has. Here a queryset is composed with marks in the place of
its values; later only the values are put in, and the rows become what the queryset would have made of them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, cast

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Model, QuerySet
from django.db.models.expressions import DatabaseDefault

M = TypeVar("M", bound=Model)
R = TypeVar("R")

# Marks: nothing a program writes into a query of its own. Numbers fit into PostgreSQL's integer.
_TEXT = "\x02mark {}\x03"
_NUMBER = 1_947_203_511
_TIME = datetime(1871, 3, 5, 7, 11, 13, 170_019, tzinfo=UTC)


def _mark(value: object, number: int) -> object:
    if type(value) is str:
        return _TEXT.format(number)
    if type(value) is int:
        return _NUMBER + number
    if type(value) is datetime:
        return _TIME + timedelta(microseconds=number)
    raise TypeError(f"{type(value).__name__} values have no mark: give a str, an int or a datetime.")


class Prepared(Generic[M, R]):
    """The rows of `make(**values)`, for values of the same types each time.

    `make` must build the same query whatever the values are, and hand them on as they are: it is called once, with
    marks. Not for what a query holds besides its SQL (prefetch_related). Safe for threads.
    """

    def __init__(self, make: Callable[..., QuerySet[M, R]]) -> None:
        self._make = make
        self._composed: _Composed | None = None

    def all(self, **values: str | int | datetime) -> list[R]:
        """The rows. Raises TypeError for a value that cannot be marked, ValueError when `make` changes or drops one."""
        composed = self._composed
        if composed is None:
            composed = self._composed = _compose(self._make, values)
        return composed.rows(values)

    def first(self, **values: str | int | datetime) -> R | None:
        """The first row, None without one. Limit the query if there may be several."""
        return next(iter(self.all(**values)), None)


def _compose(make: Callable[..., QuerySet[Any, Any]], values: dict[str, Any]) -> _Composed:
    marks = {name: _mark(value, number) for number, (name, value) in enumerate(values.items())}
    queryset = make(**marks)
    if queryset._prefetch_related_lookups:  # type: ignore[attr-defined]
        raise ValueError("prefetch_related is a query of its own.")
    compiler = queryset.query.get_compiler(DEFAULT_DB_ALIAS)
    sql, parameters = compiler.as_sql()
    # Position to the name of the value, and what turns it into what the field's parameter was (a typed number).
    places: dict[int, tuple[str, Callable[[Any], Any] | None]] = {}
    for position, parameter in enumerate(parameters):
        for name, mark in marks.items():
            if parameter == mark:
                places[position] = name, None if type(parameter) is type(mark) else type(parameter)
    missing = set(marks) - {name for name, _ in places.values()}
    if missing or any("\x02mark" in part for part in (sql, *map(str, _without(parameters, places)))):
        raise ValueError(f"The query changes the values it is given, or drops them: {', '.join(missing or marks)}.")
    return _Composed(queryset, compiler, sql, list(parameters), places)


def _without(parameters: Any, places: dict[int, Any]) -> list[Any]:
    return [parameter for position, parameter in enumerate(parameters) if position not in places]


class _Composed:
    def __init__(
        self, queryset: QuerySet[Any, Any], compiler: Any, sql: str, parameters: list[Any],
        places: dict[int, tuple[str, Callable[[Any], Any] | None]],
    ) -> None:  # fmt: skip
        self.queryset, self.compiler, self.sql = queryset, compiler, sql
        self.parameters, self.places = parameters, places

    def rows(self, values: dict[str, Any]) -> list[Any]:
        parameters = list(self.parameters)
        for position, (name, convert) in self.places.items():
            value = values[name]
            parameters[position] = value if convert is None else convert(value)
        # Django's own way from here on, with copies that know what they would find out: each call has its own, since
        # a compiler keeps the connection of its thread.
        compiler = copy.copy(self.compiler)
        compiler.connection = connections[DEFAULT_DB_ALIAS]
        compiler.as_sql = lambda *args, **options: (self.sql, tuple(parameters))
        query = copy.copy(self.queryset.query)
        query.get_compiler = lambda *args, **options: compiler  # type: ignore[method-assign]
        queryset: Any = self.queryset.__class__(model=self.queryset.model, query=query, using=DEFAULT_DB_ALIAS)
        rows: Iterable[Any] = cast(Any, self.queryset)._iterable_class(queryset)
        return list(rows)


@functools.cache
def _insert_text(model: type[Model], columns: tuple[str, ...]) -> str:
    quote = connections[DEFAULT_DB_ALIAS].ops.quote_name
    names, places = ", ".join(map(quote, columns)), ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({places})"


def insert(*objects: Model) -> None:
    """Write new rows, of any models, in the order given and in one message: all of them, or an error and none.

    Inside a transaction. What the database would fill in (a serial key) is not read back, and no signals are sent.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    texts: list[str] = []
    parameters: list[Any] = []
    for one in objects:
        columns: list[str] = []
        field: Any
        for field in one._meta.local_concrete_fields:
            value = field.pre_save(one, add=True)
            if isinstance(value, DatabaseDefault) or (value is None and field.primary_key):
                continue  # the database has a value of its own
            columns.append(field.column)
            parameters.append(field.get_db_prep_save(value, connection))
        texts.append(_insert_text(type(one), tuple(columns)))
    with connection.cursor() as cursor:
        cursor.execute(";\n".join(texts), parameters)
    for one in objects:
        one._state.adding, one._state.db = False, DEFAULT_DB_ALIAS
