"""One tree of errors; every one of them survives pickling.

DiasporaParslError
├── ConfigurationError (ValueError)     what was given cannot work; the sentence says what to write instead
│   ├── FabricURLError                  a fabric URL that no transport can open
│   └── PlacementError                  a task asks for what no endpoint of the pool has
├── FabricError
│   └── FabricUnavailableError          the event fabric cannot be reached now; trying later may help
├── EndpointError                       an endpoint did not do its part; the pool goes on elsewhere
│   ├── SubmitFailedError               it did not take an attempt
│   ├── AttemptLostError                it lost one
│   └── PayloadTooLargeError            it takes no arguments of that size
├── TaskExceptionError              the task raised something that Parsl cannot deliver
└── PoolError
    ├── EndpointsUnavailableError       every endpoint that could run the task was down for too long
    ├── PoisonTaskError                 the task was lost with its place again and again, and is given up
    └── PoolShutdownError               the pool was shut down before the task was done
"""


class DiasporaParslError(Exception):
    """Root of everything that this package raises on purpose."""


class ConfigurationError(DiasporaParslError, ValueError):
    """What was given cannot work; the message says what to write instead."""


class FabricURLError(ConfigurationError):
    """A fabric URL that no transport can open."""


class PlacementError(ConfigurationError):
    """A task asks for something, such as a tag, that no endpoint of the pool has."""


class FabricError(DiasporaParslError):
    """Something is wrong with the event fabric."""


class FabricUnavailableError(FabricError):
    """The event fabric cannot be reached now; trying later may help."""


class EndpointError(DiasporaParslError):
    """An endpoint did not do its part; the pool goes on elsewhere."""


class SubmitFailedError(EndpointError):
    """An endpoint, or the service before it, did not take an attempt."""


class AttemptLostError(EndpointError):
    """An endpoint took an attempt and lost it."""


class PayloadTooLargeError(EndpointError):
    """An endpoint takes no arguments of that size; the message says what to do instead."""


class TaskExceptionError(DiasporaParslError):
    """The task raised something that Parsl cannot deliver: no `Exception`, or one that raises when it is formatted."""


class PoolError(DiasporaParslError):
    """The pool gave a task up."""


class EndpointsUnavailableError(PoolError):
    """Every endpoint that could run the task was down for longer than the pool's limit."""


class PoisonTaskError(PoolError):
    """The task was lost together with its place again and again, and is given up.

    Args:
        message: says all of it.
        function: that the task runs.
        places: labels of the endpoints where it was lost.
        kills: workers that died while they ran it.
    """

    def __init__(self, message: str = "", *, function: str = "", places: tuple[str, ...] = (), kills: int = 0) -> None:
        super().__init__(message)
        self.function = function
        self.places = places
        self.kills = kills


class PoolShutdownError(PoolError):
    """The pool was shut down before the task was done."""
