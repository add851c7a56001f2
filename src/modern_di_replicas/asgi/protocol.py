"""The types of ASGI."""

import collections.abc
import typing


Scope = collections.abc.MutableMapping[str, typing.Any]
Message = collections.abc.MutableMapping[str, typing.Any]
Receive = collections.abc.Callable[[], collections.abc.Awaitable[Message]]
Send = collections.abc.Callable[[Message], collections.abc.Awaitable[None]]
App = collections.abc.Callable[[Scope, Receive, Send], collections.abc.Awaitable[None]]
