"""Every error that mipnet raises on purpose, one class per remedy.

    MipnetError
    ├── InputError (ValueError)      something given is wrong: change it
    │   ├── SpecError                a key of the YAML file
    │   ├── DataError                images, labels, files of data
    │   ├── NetworkError             weights, shapes, wiring
    │   └── UnsupportedError         a layer, operator or formulation that mipnet does not have
    ├── UnboundedError (ValueError)  a big-M is needed where no finite bound is known
    └── BackendError (RuntimeError)  the solver cannot do this
        ├── BackendMissing           not installed, or no such backend
        ├── OptionError              the solver has no such option, or not with this value
        └── SolverFailure            the solver broke down or contradicted itself

Each message says what was given, what was expected and what to do.  The command line prints it in one line and ends
with exit status 2.
"""

from __future__ import annotations


class MipnetError(Exception):
    """Base class of every error that mipnet raises on purpose."""


class InputError(MipnetError, ValueError):
    """Something given is wrong; the message says what was expected."""


class SpecError(InputError):
    """A key of the YAML file is missing, unknown or has a wrong value."""


class DataError(InputError):
    """Images, labels or a data file do not fit."""


class NetworkError(InputError):
    """Weights, shapes or the wiring of a network do not fit."""


class UnsupportedError(InputError):
    """A layer, operator or formulation that mipnet does not have."""


class UnboundedError(MipnetError, ValueError):
    """A big-M is needed where no finite bound is known; mipnet never invents one."""


class BackendError(MipnetError, RuntimeError):
    """The solver cannot do what was asked."""


class BackendMissing(BackendError):
    """The solver is not installed, or no backend has that name."""


class OptionError(BackendError, ValueError):
    """The solver has no such option, or not with that value."""


class SolverFailure(BackendError):
    """The solver broke down, or what it said contradicts itself."""
