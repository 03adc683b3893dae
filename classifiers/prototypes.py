"""A probe from labelled pictures: to whose mean is an image nearest?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from classifiers.probe import Embeddings, Head
from classifiers.zero_shot import ensemble

SCALE = 100.0
"""What a cosine is multiplied by before any temperature: CLIP's own bound, for lack of a better."""


def fit(embeddings: Embeddings, truth: npt.NDArray[np.int64], levels: int) -> Head:
    """The mean embedding of the pictures of each level, at unit length: `(n, d), (n,) -> (K, d)`.

    Bianchi et al. (2023), arXiv:2211.03759, section 3, who take the nearest by cosine; the temperature makes
    probabilities of it.
    """
    wide = embeddings.astype(np.float32)
    means = np.stack([ensemble(wide[truth == k]) for k in range(levels)])
    return Head(means, np.zeros(levels, np.float32), SCALE)
