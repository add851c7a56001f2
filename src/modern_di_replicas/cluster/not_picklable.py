"""Objects that cannot be pickled for another process, such as a spawned one or a worker of a process pool."""

import typing

from modern_di_replicas.errors import NotPicklableError


class NotPicklable:
    """An object with connections or locks of its process; pickling it would fail at an internal part."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: typing.SupportsIndex) -> typing.NoReturn:
        names = (kind.__name__ for kind in type(self).__mro__)
        raise NotPicklableError(kind=next(name for name in names if not name.startswith("_")))

    def __copy__(self) -> typing.Self:
        # Within the process it can be copied, which `copy` does by `__reduce_ex__`, too.
        state = typing.cast(tuple[typing.Any, ...], object.__reduce_ex__(self, 4))[2]
        copied = type(self).__new__(type(self))
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        vars(copied).update(attributes)
        for name in slots or ():
            setattr(copied, name, slots[name])
        return copied
