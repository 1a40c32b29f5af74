"""The YAML file of `mipnet agree`."""

from __future__ import annotations

from typing import Annotated, Literal

from mipnet.app.files.certify_file import InputSetFile
from mipnet.app.files.sections import NetworkSpec
from mipnet.app.files.values import NotNegative, Positive, Section, choice


class AgreeSpec(Section):
    """What has to agree: the outputs (``difference``), up to ``within`` if it is given, or the ``class``, where it leads by ``margin``.

    ``margin`` is relative to the largest absolute output of the network that was found in the input set.
    """

    about: Annotated[Literal["difference", "class"], choice("difference", "class")] = "difference"
    within: Positive | None = None
    margin: NotNegative = 1e-6


class AgreeFile(InputSetFile):
    """A YAML file for `mipnet agree`: two networks and an input set."""

    task: Annotated[Literal["agree"], choice("agree")]
    second: NetworkSpec
    agree: AgreeSpec = AgreeSpec()
