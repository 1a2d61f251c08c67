"""A head has the same bits on any number of cores, unless its matrices are large."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from vgg16_transfer.heads import base, threads
from vgg16_transfer.heads.base import Data, Pictures
from vgg16_transfer.params import Trial


def pictures(count: int, seed: int) -> Pictures:
    random = np.random.default_rng(seed)
    return Pictures(random.random((count, 4096), np.float32), np.arange(count) % 16)


def in_use() -> set[int]:
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.parametrize("head", ["softmax", "logistic", "linear_svm", "nearest_mean"])
def test_a_head_has_the_same_bytes_on_any_number_of_cores(head: str) -> None:
    training = pictures(128, 0)
    data = Data(training, {"train": training, "test": pictures(96, 1)}, (4096,), 16)
    trial = Trial(head=head, samples_per_class=8, epochs=20)
    kernels = []
    for cores in (1, 2):
        with threadpool_limits(cores, user_api="blas"):
            fitted = base.fit_of(head)(trial, data)
        kernels.append([weight.tobytes() for weight in fitted.head.to_keras().get_weights()])
    assert kernels[0] == kernels[1]


def test_large_products_have_all_threads_and_threads_come_back() -> None:
    with threadpool_limits(2, user_api="blas"):
        with threads.enough_for(threads.SMALL - 1):
            assert in_use() == {1}
        with threads.enough_for(threads.SMALL):
            assert in_use() == {2}
        assert in_use() == {2}
