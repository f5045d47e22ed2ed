"""Wire forms, fast: what REST framework's `to_representation` answers, with the fields' descriptions read only once.

A page of 200 clusters has some 20,000 values, and REST framework asks anew for each how it is reached and what it may
be. Here a serializer becomes one function, with a short way for what values usually are (a text that is a text already,
a number, a nested list). Whatever is anything else goes through the field itself, so the answer is the same; a test
compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from rest_framework import serializers
from rest_framework.fields import Field, SkipField, _UnvalidatedField

Shape = Callable[[Any], Any]


def shape_of(serializer: serializers.BaseSerializer[Any]) -> Shape:
    """The function that gives what `serializer.to_representation` does. Of a Serializer or ListSerializer."""
    if isinstance(serializer, serializers.ListSerializer):
        return _list_shape(serializer)
    if type(serializer).to_representation is not serializers.Serializer.to_representation:
        return serializer.to_representation
    assert isinstance(serializer, serializers.Serializer)
    fields = [
        (name, _path(field), _conversion(field), field)
        for name, field in serializer.fields.items()
        if not field.write_only
    ]

    def shape(instance: Any) -> dict[str, Any]:
        shown = {}
        for name, path, convert, field in fields:
            value = instance
            try:
                if path is None:
                    raise AttributeError
                for attribute in path:
                    value = value[attribute] if type(value) is dict else getattr(value, attribute)
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


def _path(field: Field[Any, Any, Any, Any]) -> tuple[str, ...] | None:
    """The attributes that lead to a field's value; None for a field that finds it in a way of its own."""
    return tuple(field.source_attrs) if type(field).get_attribute is Field.get_attribute else None


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
    if kind in (serializers.CharField.to_representation, serializers.DateTimeField.to_representation):
        # Times in stored JSON are texts; an empty one is shown as null.
        texts = kind is serializers.CharField.to_representation
        return lambda value: value if type(value) is str and (texts or value) else own(value)
    if kind is serializers.IntegerField.to_representation:
        return lambda value: value if type(value) is int else own(value)
    if kind is serializers.BooleanField.to_representation:
        return lambda value: value if type(value) is bool else own(value)
    if isinstance(field, serializers.ChoiceField) and kind is serializers.ChoiceField.to_representation:
        choices: Mapping[str, Any] = field.choice_strings_to_values
        return lambda value: choices.get(value, value) if type(value) is str else own(value)
    if isinstance(field, serializers.DictField) and kind is serializers.DictField.to_representation:
        child = None if type(field.child) is _UnvalidatedField else _conversion(field.child)
        return _dict_conversion(child, own)
    return own


def _dict_conversion(child: Shape | None, own: Shape) -> Shape:
    def convert(value: Any) -> Any:
        if type(value) is not dict:
            return own(value)
        if child is None:
            return {str(key): one for key, one in value.items()}
        return {str(key): None if one is None else child(one) for key, one in value.items()}

    return convert
