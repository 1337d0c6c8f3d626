"""What applications hand in.

Its one rule: it is checked before anything is done, so that a refused call has changed nothing.
"""

from __future__ import annotations

from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint, LogicalAddress
from opus_socket.core.dispatch import MAX_WEIGHT
from opus_socket.core.inquiries import Target
from opus_socket.core.message import MASK
from opus_socket.core.node import ProtocolSpec
from opus_socket.core.requests import check_whole, shown, whole
from opus_socket.core.service import Scope, Service
from opus_socket.errors import LocalProtocolError

_LAST_CLASS = MASK["traffic_class"]
_EVERYBODY = [LogicalAddress.everybody(las) for las in range(MASK["las"] + 1)]


def check_address(spec: ProtocolSpec, address: object) -> LogicalAddress:
    """The address, if it is one of this protocol.

    Raises:
        LocalProtocolError: it is not.
    """
    if not isinstance(address, LogicalAddress) or len(address) != spec.las + 1:
        raise LocalProtocolError(
            f"{address!r} is no address of {spec.name}; "
            f"a LogicalAddress of {spec.las + 1} words is allowed"
        )
    if address == _EVERYBODY[spec.las]:
        raise LocalProtocolError(
            f"{address} is everybody's address; a LogicalAddress is allowed that has "
            "another word than the largest"
        )
    return address


def check_target(spec: ProtocolSpec, target: object) -> Target:
    """Whom a measurement is about; an endpoint stands for whichever member is there.

    Raises:
        LocalProtocolError: it is no address of this protocol, no contact and no endpoint, or
            an endpoint with a name instead of an IP address.
    """
    if isinstance(target, Endpoint):
        return Contact(None, 0, ANY_INDEX, (target.checked(),))
    if isinstance(target, Contact):
        return target
    if isinstance(target, LogicalAddress) and target.las == spec.las:
        return check_address(spec, target)
    raise LocalProtocolError(
        f"{target!r} cannot be measured; a LogicalAddress of {spec.las + 1} words, a Contact or an "
        "Endpoint is allowed"
    )


def check_handler(handler: object, scope: object) -> tuple[Service, Scope]:
    """A handler and what it is to see.

    Raises:
        LocalProtocolError: it is no service, or sees nothing.
    """
    if not isinstance(handler, Service):
        raise LocalProtocolError(
            f"{handler!r} is no handler; an object of a class that is derived from Service is "
            "allowed, such as Merge(...)"
        )
    if not isinstance(scope, Scope) or not scope:
        raise LocalProtocolError(
            f"scope {scope!r}: Scope.DELIVERED, Scope.RELAYED or Scope.BOTH is allowed"
        )
    return handler, scope


def check_maximum(call: str, maximum: int) -> int:
    """The number of messages that a call is to return at most.

    Raises:
        LocalProtocolError: it is no whole number, or none of at least 1.
    """
    number = whole(maximum)
    if number is None or number < 1:
        raise LocalProtocolError(
            f"{call}({shown(maximum)}): a whole number of at least 1 is allowed"
        )
    return number


def check_traffic_class(traffic_class: int) -> int:
    """The traffic class of a message.

    Raises:
        LocalProtocolError: it is no whole number from 0 to 255.
    """
    if type(traffic_class) is int and 0 <= traffic_class <= _LAST_CLASS:
        return traffic_class
    return check_whole("traffic_class", traffic_class, 0, _LAST_CLASS)


def check_weight(weight: int) -> int:
    """The weight of a traffic class.

    Raises:
        LocalProtocolError: it is no whole number from 1 to 100.
    """
    return check_whole("weight", weight, 1, MAX_WEIGHT)
