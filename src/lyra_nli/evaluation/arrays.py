"""The arrays that the functions of this room take.

`probabilities` are [n, 3], rows sum to 1, columns in the order of ``LABELS``; `labels` and
`chosen` are [n], indices into ``LABELS``: what is true, and what the model answered;
`confidence` is [n], the probability of the chosen label; `hits` is [n], whether that is the
true one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]
Confidence = NDArray[np.float64]
Hits = NDArray[np.bool_]
