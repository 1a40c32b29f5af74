"""The YAML file of `mipnet counterfactual`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mipnet.app.files.certify_file import CertifyFile, CertifySolveSpec, HullSpec, PolytopeSpec, WrittenSet, only_set
from mipnet.app.files.sections import BoxSpec
from mipnet.app.files.values import Count, FiniteNumber, ListAsTuple, NotNegative, Positive, Section, Text, choice, expects

ClassNumber = Annotated[int, Field(ge=0)]
FeatureGroup = Annotated[tuple[str | int, ...], ListAsTuple]
FeatureList = Annotated[tuple[str | int, ...], ListAsTuple, expects("a list of features, by name or number")]
FeatureNumbers = Annotated[
    dict[str, FiniteNumber] | tuple[FiniteNumber, ...], ListAsTuple, expects("a mapping from features to numbers, or a list of numbers")
]
IntervalOfOutput = Annotated[tuple[FiniteNumber | None, FiniteNumber | None], ListAsTuple]


class FeaturesSpec(Section):
    """The ``names`` of the inputs in their order, and what they may do: keep their value, be whole numbers, or only grow or shrink.

    Each list of ``one_hot`` holds the columns of one category.
    """

    names: Annotated[tuple[Text, ...], Field(min_length=1), ListAsTuple, expects("a list of names, one per input")] | None = None
    immutable: FeatureList = ()
    integer: FeatureList = ()
    one_hot: Annotated[tuple[FeatureGroup, ...], ListAsTuple, expects("a list of groups, such as [[red, green]]")] = ()
    increasing: FeatureList = ()
    decreasing: FeatureList = ()


class DistanceSpec(Section):
    """The norm of the difference, and the weight of each feature in it."""

    norm: Annotated[Literal["l1", "l2", "linf"], choice("l1", "l2", "linf")] = "l1"
    weights: FeatureNumbers | None = None


class AnswersSpec(Section):
    """How many answers, by how much they differ in one feature (null: in the features that change), and by how much the class wins."""

    count: Count = 1
    apart: Positive | None = None
    margin: NotNegative = 1e-4


class CounterfactualSolveSpec(CertifySolveSpec):
    """The section ``solve``, with the relative gap of a distance as ``tolerance``."""

    tolerance: NotNegative = 1e-3


class CounterfactualFile(CertifyFile):
    """A YAML file for `mipnet counterfactual`: a network, an input, and the answer that the nearest input should have.

    The ``target`` is a class, a list of classes, or a mapping from outputs to intervals; ``box``, ``polytope`` or ``hull`` is the set that
    answers lie in.
    """

    task: Annotated[Literal["counterfactual"], choice("counterfactual")]
    input: FeatureNumbers
    target: Annotated[
        ClassNumber | tuple[ClassNumber, ...] | dict[int, IntervalOfOutput],
        ListAsTuple,
        expects("a class, a list of classes, or a mapping from outputs to intervals, such as {0: [0.5, null]}"),
    ]
    features: FeaturesSpec = FeaturesSpec()
    distance: DistanceSpec = DistanceSpec()
    answers: AnswersSpec = AnswersSpec()
    box: BoxSpec | None = None
    polytope: PolytopeSpec | None = None
    hull: HullSpec | None = None
    solve: CounterfactualSolveSpec = CounterfactualSolveSpec()

    @model_validator(mode="after")
    def _one_set_at_most(self) -> CounterfactualFile:
        only_set(self.box, self.polytope, self.hull)
        return self

    @property
    def within(self) -> WrittenSet | None:
        """The section of the set that answers lie in."""
        return only_set(self.box, self.polytope, self.hull)
