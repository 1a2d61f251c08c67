"""The kinds of heads, one row each. To add a kind, add a row and a module in heads/kinds/.

A row is data, so that params.yaml can be checked without Keras, which takes seconds to import. The
module ``vgg16_transfer.heads.kinds.<name>`` has the function ``fit`` that
:class:`~vgg16_transfer.heads.base.Fit` describes.
"""

from __future__ import annotations

from typing import NamedTuple


class HeadKind(NamedTuple):
    """A way to learn classes from features.

    Attributes:
        what: One line for docs/heads.md.
        source: Publication that describes the method.
        keys: Keys of a trial that this kind uses, without those that all kinds use.
        linear: Whether logits are linear in the features. Then each class has weights, and an
            activation map can show them.
    """

    what: str
    source: str
    keys: frozenset[str] = frozenset()
    linear: bool = True


HEAD_KINDS = {
    "softmax": HeadKind(
        what="softmax regression by gradient descent, every epoch measured",
        source="the report of 2017, section 3",
        keys=frozenset(
            {
                "epochs",
                "batch_size",
                "optimizer",
                "schedule",
                "warmup_epochs",
                "learning_rate",
                "momentum",
                "weight_decay",
                "normalise",
                "teacher_layer",
                "teacher_samples_per_class",
                "teacher_pictures",
                "teacher_temperature",
                "teacher_weight",
                "unlabelled_per_class",
            }
        ),
    ),
    "logistic": HeadKind(
        what="scikit-learn's L2-regularised logistic regression; its C is chosen on validation "
        "pictures, or by cross-validation on training pictures",
        source="Kornblith et al. 2019, section 3",
        keys=frozenset({"normalise"}),
    ),
    "linear_svm": HeadKind(
        what="scikit-learn's linear support vector machine, one class against the rest; its C is "
        "chosen like that of `logistic`",
        source="Zeiler & Fergus 2014, section 5.1",
        keys=frozenset({"normalise"}),
    ),
    "nearest_mean": HeadKind(
        what="the class whose mean of training features has the largest cosine",
        source="Mensink et al. 2013; Snell et al. 2017, with cosines",
    ),
    "nearest_neighbours": HeadKind(
        what="the nearest training pictures by cosine vote, weighted by exp(cosine / 0.07)",
        source="Wu et al. 2018, section 3.4",
        keys=frozenset({"neighbours"}),
        linear=False,
    ),
}
"""The kinds of heads, by the name that params.yaml uses."""

DEFAULT_HEAD = "softmax"
"""The head of the report."""
