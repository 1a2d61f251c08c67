"""The Python interface: from pictures to a head, in a notebook or a script.

::

    import vgg16_transfer as vt

    data = vt.dataset("~/pets")                  # classes, pictures, splits
    features = vt.features(data)                 # one forward pass, kept for the next time
    head = vt.fit(features, samples_per_class=8)
    head.predict("cat.jpg")

    vt.study(features, samples_per_class=[2, 4, 8], seed=range(10))

Each function calls what the stages of dvc.yaml call. So a head is the one that ``dvc repro`` trains
from the same pictures and settings. What DVC adds is lineage: data and code of every result.

Mistakes raise :class:`~vgg16_transfer.errors.InputError`, with one sentence per mistake.
"""
