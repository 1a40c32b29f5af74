"""The contract between mipnet and a solver: everything that a backend imports.  It loads neither torch nor linopy nor xarray."""

from mipnet.backend.contract import Backend as Backend
from mipnet.backend.contract import Event as Event
from mipnet.backend.contract import Feature as Feature
from mipnet.backend.contract import LazyRows as LazyRows
from mipnet.backend.contract import Limits as Limits
from mipnet.backend.contract import OnEvent as OnEvent
from mipnet.backend.contract import Options as Options
from mipnet.backend.contract import Outcome as Outcome
from mipnet.backend.contract import PointSource as PointSource
from mipnet.backend.contract import Session as Session
from mipnet.backend.contract import Status as Status
from mipnet.backend.contract import relative_gap as relative_gap
from mipnet.backend.installed_backends import BackendSettings as BackendSettings
from mipnet.backend.installed_backends import FoundBackend as FoundBackend
from mipnet.backend.installed_backends import backends as backends
from mipnet.backend.installed_backends import get_backend as get_backend
from mipnet.backend.program import LogSumExp as LogSumExp
from mipnet.backend.program import Program as Program
from mipnet.backend.rows import Indicators as Indicators
from mipnet.backend.rows import Rows as Rows
from mipnet.backend.tolerances import SolverTolerances as SolverTolerances
from mipnet.backend.tolerances import ToleranceKind as ToleranceKind
from mipnet.backend.value_sets import SemiContinuous as SemiContinuous
