"""Images with their labels, as one argument."""

from __future__ import annotations

from dataclasses import dataclass, field

from numpy.typing import ArrayLike

from mipnet.errors import suggest_keywords
from mipnet.network.labelled_samples import align_images_and_labels
from mipnet.network.named_inputs import Names


@suggest_keywords
@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of shape ``(samples, *shape of one sample)`` and their classes, of shape ``(samples,)``.

    A `mipnet.readers.data.Dataset`, as `mipnet.load` returns it, can be given in its place.  If both are labelled arrays, they are aligned
    by the labels of their samples; ``input_names`` are the names of the columns of a labelled array.
    """

    images: ArrayLike
    labels: ArrayLike
    input_names: Names = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        align_images_and_labels(self)
