"""Wire forms, fast: what REST framework's `to_representation` answers, with the fields' descriptions read only once.

A page of 200 clusters has some 20,000 values, and REST framework asks anew for each how it is reached and what it may
be. Here a serializer becomes one function, with a short way for what values usually are (a text that is a text already,
a number, a nested list). Whatever is anything else goes through the field itself, so the answer is the same; a test
compares the two.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from rest_framework import serializers
from rest_framework.fields import Field, SkipField, _UnvalidatedField

Shape = Callable[[Any], Any]

# How a field shows a value, and the type whose values it shows as they are.
PLAIN: Mapping[Any, type] = {
    serializers.CharField.to_representation: str,
    serializers.IntegerField.to_representation: int,
    serializers.BooleanField.to_representation: bool,
}


def shape_of(serializer: serializers.BaseSerializer[Any]) -> Shape:
    """The function that gives what `serializer.to_representation` does. Of a Serializer or ListSerializer."""
    if isinstance(serializer, serializers.ListSerializer):
        return _list_shape(serializer)
    if type(serializer).to_representation is not serializers.Serializer.to_representation:
        return serializer.to_representation
    assert isinstance(serializer, serializers.Serializer)
    fields = [
        (name, _path(field), _plain(field), _conversion(field), field)
        for name, field in serializer.fields.items()
        if not field.write_only
    ]

    def shape(instance: Any) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        table = type(instance) is dict
        for name, path, plain, convert, field in fields:
            try:
                if type(path) is str:
                    value = instance[path] if table else getattr(instance, path)
                elif path is None:
                    raise AttributeError
                else:
                    value = instance
                    for attribute in path:
                        value = value[attribute] if type(value) is dict else getattr(value, attribute)
                        if callable(value):
                            raise AttributeError
                if type(value) is plain:
                    shown[name] = value
                    continue
                if callable(value):
                    raise AttributeError
            except (AttributeError, KeyError, ObjectDoesNotExist):
                # A method, or nothing there: REST framework knows calls and defaults, and complains in its own words.
                try:
                    value = field.get_attribute(instance)
                except SkipField:
                    continue
            shown[name] = None if value is None else convert(value)
        return shown

    return shape


def _path(field: Field[Any, Any, Any, Any]) -> str | tuple[str, ...] | None:
    """The attribute, or several, that lead to a field's value; None for a field that finds it in a way of its own."""
    if type(field).get_attribute is not Field.get_attribute:
        return None
    return field.source_attrs[0] if len(field.source_attrs) == 1 else tuple(field.source_attrs)


def _plain(field: Field[Any, Any, Any, Any]) -> type | None:
    """The type whose values the field shows as they are, None when there is none."""
    kind = getattr(type(field), "to_representation", None)
    if isinstance(field, serializers.ChoiceField) and kind is serializers.ChoiceField.to_representation:
        choices: Mapping[str, Any] = field.choice_strings_to_values
        return str if all(type(value) is str and key == value for key, value in choices.items()) else None
    return PLAIN.get(kind)


def _list_shape(serializer: serializers.ListSerializer[Any]) -> Shape:
    if type(serializer).to_representation is not serializers.ListSerializer.to_representation:
        return serializer.to_representation
    assert isinstance(serializer.child, serializers.BaseSerializer)
    one = shape_of(serializer.child)

    def shape(values: Any) -> Any:
        if type(values) is not list:
            return serializer.to_representation(values)
        return [one(value) for value in values]

    return shape


def _conversion(field: Field[Any, Any, Any, Any]) -> Shape:
    """A value's way through one field; the field's own unless the value is already what it would become."""
    if isinstance(field, serializers.BaseSerializer):
        return shape_of(field)
    own = field.to_representation
    kind = getattr(type(field), "to_representation", None)
    if kind is serializers.DateTimeField.to_representation:
        return _time_conversion(own)
    if isinstance(field, serializers.DictField) and kind is serializers.DictField.to_representation:
        child = None if type(field.child) is _UnvalidatedField else _conversion(field.child)
        return _dict_conversion(child, own)
    return own


def _time_conversion(own: Shape) -> Shape:
    def convert(value: Any) -> Any:
        # Times in stored JSON are texts; an empty one is shown as null.
        if type(value) is str and value:
            return value
        # As the database answers them. All of Berth is in UTC, so there is no other zone to ask for.
        if type(value) is datetime.datetime and value.tzinfo is datetime.UTC:
            return value.isoformat()[: -len("+00:00")] + "Z"
        return own(value)

    return convert


def _dict_conversion(child: Shape | None, own: Shape) -> Shape:
    def convert(value: Any) -> Any:
        if type(value) is not dict:
            return own(value)
        if child is None:
            return {str(key): one for key, one in value.items()}
        return {str(key): None if one is None else child(one) for key, one in value.items()}

    return convert
